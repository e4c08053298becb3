"""One JSON request per line in, one JSON reply per line out: how poq-bench-models talks to what it measures itself beside."""

import json
import os
import sys
import time


def serve(handlers):
    """Answers requests `{"do": NAME, ...}` with what `handlers[NAME](**rest)` returns, until the input ends.

    Libraries print what they like: their standard output goes to standard error, replies keep the real one.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = handlers[request.pop("do")](**request)
        except Exception as error:  # the other side reports it and stops
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def timed(function):
    """What `function` returns, and how many seconds it took."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started
