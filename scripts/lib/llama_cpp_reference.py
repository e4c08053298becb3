"""What llama.cpp computes with the GGUF files of a folder of fixtures, written beside what transformers computes.

    llama_cpp_reference.py FIXTURES

Every FIXTURES/*/expected.json whose folder has a model.gguf gets `llama_cpp`: the logarithms of the chances of every token after the
same prompt (logits but for a constant), and the likeliest tokens that follow. Keys and values are kept in 32 bits; the rest is as
llama.cpp does it, which rounds vectors to eight bits before it multiplies them by quantised matrices, and to sixteen before matrices
of sixteen. Where it passes over what a file says, that is written down instead.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import gguf
import xllamacpp


def serve(path):
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.warmup = False
    parameters.verbosity = 0
    parameters.cache_ram_mib = 0
    # A template that it does not know is no reason to refuse a completion.
    parameters.use_jinja = False
    return xllamacpp.Server(parameters)


def complete(server, prompt, count, vocabulary, plain):
    answer = server.handle_completions(
        {
            "prompt": prompt,
            "n_predict": count,
            "temperature": 0,
            "samplers": ["temperature"],
            "n_probs": vocabulary,
            "cache_prompt": False,
            # Of an answer that ends at once, or in the middle of a character, no chances are told: it answers "a". What is told are
            # the chances before that.
            "ignore_eos": True,
            "logit_bias": [[plain, 1000]],
        }
    )
    choices = answer.get("choices")
    if not choices:
        raise RuntimeError(f"llama.cpp answers {str(answer)[:300]}")
    return choices[0]["logprobs"]["content"]


def window_of(path):
    """The key of a window of attention that llama.cpp does not look at: it has none for these architectures."""
    fields = gguf.GGUFReader(path).fields
    architecture = fields["general.architecture"].contents()
    key = f"{architecture}.attention.sliding_window"
    return key if architecture in ("llama", "phi3") and key in fields else None


def main():
    for path in sorted(Path(sys.argv[1]).glob("*/model.gguf")):
        about = path.with_name("expected.json")
        expected = json.loads(about.read_text(encoding="utf-8"))
        vocabulary = len(expected["logits"])
        if passed_over := window_of(path):
            expected["llama_cpp"] = {"passes_over": passed_over}
            about.write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")
            continue
        plain = next(text["tokens"][-1] for text in expected["texts"] if text["text"] == "a")
        server = serve(path)
        prompt, following, first = list(expected["prompt"]), [], None
        # One by one, past tokens that end answers.
        for _ in expected["following"]:
            step = complete(server, prompt, 1, vocabulary, plain)[0]
            row = {entry["id"]: entry["logprob"] for entry in step["top_logprobs"]}
            first = first or row
            best = max(row, key=row.__getitem__)
            following.append(best)
            prompt.append(best)
        del server
        expected["llama_cpp"] = {
            "version": version("xllamacpp"),
            "logprobs": [round(first[token], 6) for token in range(vocabulary)],
            "following": following,
        }
        about.write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
