"""Installed models as Python's transformers and sentence-transformers load them."""

import json
import os
import pathlib
import tempfile


def hugging_face_folder(source, role, max_tokens):
    """The installed model as a folder that transformers loads: it wants a tokenizer's settings, and a head's."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="poq-bench-"))
    source = pathlib.Path(source)
    for name in ["model.safetensors", "tokenizer.json"]:
        os.symlink(source / name, folder / name)
    config = json.loads((source / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification" if role == "cross-encoder" else "BertModel"]
    if role == "cross-encoder":
        config["id2label"] = {"0": "relevance"}
        config["label2id"] = {"relevance": 0}
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_tokens}
    for role_of, token in [("cls", "CLS"), ("sep", "SEP"), ("pad", "PAD"), ("unk", "UNK"), ("mask", "MASK")]:
        settings[f"{role_of}_token"] = f"[{token}]"
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
