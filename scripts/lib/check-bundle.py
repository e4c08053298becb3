#!/usr/bin/env python3
"""Opens .contract files with substrate-interface, as Python programs would: types of every message and event, selectors, calls.

Usage: check-bundle.py FILE...
"""

import json
import sys

from scalecodec.base import RuntimeConfigurationObject, ScaleBytes
from scalecodec.type_registry import load_type_registry_preset
from substrateinterface.contracts import ContractMetadata


class Offline:
    """What the library asks of a connection in order to read metadata."""

    def __init__(self):
        self.runtime_config = RuntimeConfigurationObject(ss58_format=42)
        self.runtime_config.update_type_registry(load_type_registry_preset("core"))

    def init_runtime(self, *_, **__):
        pass


def check(path):
    with open(path, encoding="utf-8") as file:
        bundle = json.load(file)
    substrate = Offline()
    metadata = ContractMetadata(metadata_dict=bundle, substrate=substrate)
    create = substrate.runtime_config.create_scale_object
    of = metadata.get_type_string_for_metadata_type
    spec = metadata.metadata_dict["spec"]
    for call in spec["constructors"] + spec["messages"]:
        for arg in call["args"]:
            create(of(arg["type"]["type"]))
        if call.get("returnType"):
            create(of(call["returnType"]["type"]))
        if not call["args"]:
            data = metadata.generate_message_data(call["label"]) if call in spec["messages"] else None
            if data is not None and data.to_hex() != call["selector"]:
                raise SystemExit(f"{path}: {call['label']}: {data.to_hex()} instead of {call['selector']}")
    for event in spec["events"]:
        if not event.get("signature_topic"):
            raise SystemExit(f"{path}: event {event['label']} has no signature topic")
        for arg in event["args"]:
            create(of(arg["type"]["type"]))
    code = ScaleBytes(bundle["source"]["wasm"])
    print(
        f"substrate-interface: {bundle['contract']['name']}: {len(spec['messages'])} messages, {len(spec['events'])} events, "
        f"{len(code.data)} bytes of code"
    )


for name in sys.argv[1:]:
    check(name)
