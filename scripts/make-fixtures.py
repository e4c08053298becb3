#!/usr/bin/env python3
"""Makes the tiny models that the engine is held against: random weights, and what `transformers` computes with them.

    make-fixtures.py [--f32] OUT [NAME...]

With --f32 every language model also becomes a GGUF file of 32 bits, in which nobody rounds anything: too large to be committed.

Each folder of OUT is a model as Hugging Face's libraries write it, or one GGUF file, with `expected.json`: the tokens of a prompt
and of texts, the logits after the prompt, the likeliest tokens that follow; of encoders, vectors and logits. Weights do not
depend on the machine. `scripts/check-models.sh` runs this with the packages that it needs; the tests read what is committed.
"""

import copy
import json
import math
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import safetensors.torch
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

torch.manual_seed(0)
torch.set_num_threads(1)
VOCABULARY = 384
CONTEXT = 512
# Longer than one piece of a prompt (256), and than every window below.
PROMPT = 300
FOLLOWING = 8

CORPUS = [
    "The Panthers defense gave up just 308 points, ranking sixth in the league, while also leading the NFL in interceptions.",
    "Most of the Amazon rainforest is contained within Brazil, with 60% of the rainforest, followed by Peru with 13%.",
    "Wer führte das Team an? Die Antwort war: 1945, 12 und 3.14; naïve Café-Besitzer.",
    "def main():\n    return {'a': [1, 2, 3]}\n\n\nif __name__ == '__main__':\n\tmain()\n",
    "黑豹队的防守只丢了 308分，在联赛中排名第六。 Кто был лидером команды?",
]
TEXTS = [
    "Hello world",
    " leading space and  two",
    "It's 1234567 o'clock, isn't it? WE'LL see.\n\n  Yes.\r\n\tTab",
    "naïve café — “quoted” 日本語 🦀 Привет",
    "<|im_end|> <s> </s> [INST]",
    "",
    "a",
]
CHAT = [
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who led the team?"}],
    [
        {"role": "user", "content": " Hi \n"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "2 + 2?"},
    ],
]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As TinyLlama's: the marks of roles are no tokens, and messages follow them without a space.
PLAIN_CHAT = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n' + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
# As Gemma's: no role for instructions, messages trimmed, the start of the text written by the template.
GEMMA_CHAT = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|")


def byte_level(split, specials, normalizer=None):
    """A byte-level BPE as its model's tokenizer.json has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return tokenizer


def sentence_piece(dummy_prefix, specials):
    """A SentencePiece BPE with bytes, as Llama's (with a space in front) and Gemma's (without), and its pieces with scores."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    special_at = len(tokens)
    tokens += specials
    scores = [0.0] * len(tokens)
    # Pieces out of the corpus, the more frequent the better.
    counts = {}
    for text in CORPUS:
        words = ("▁" + text.replace(" ", "▁")) if dummy_prefix else text.replace(" ", "▁")
        for length in range(1, 5):
            for i in range(len(words) - length + 1):
                piece = words[i : i + length]
                if piece.isascii() or "▁" in piece or length == 1:
                    if "\n" not in piece and "\t" not in piece:
                        counts[piece] = counts.get(piece, 0) + (1 if length > 1 else 1000)
    pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))[: VOCABULARY - len(tokens)]
    merged = sorted((p for p in pieces if len(p) > 1), key=lambda p: (len(p), -counts[p], p))
    merged += [p for p in pieces if len(p) == 1]
    tokens += merged
    scores += [-float(i) for i in range(len(merged))]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # transformers' `generate_merges`.
    merges = []
    for piece in merged:
        own = []
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in vocabulary and right in vocabulary:
                own.append((left, right, scores[vocabulary[piece]]))
        merges += sorted(own, key=lambda m: (vocabulary[m[0]], vocabulary[m[1]]))
    merges = sorted(merges, key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [(l, r) for l, r, _ in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    steps = [normalizers.Replace(" ", "▁")]
    if dummy_prefix:
        steps.insert(0, normalizers.Prepend("▁"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tail = [decoders.Strip(" ", 1, 0)] if dummy_prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *tail])
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ["<unk>", "<s>", "</s>", *specials]]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    types = [2, 3, 3] + [6] * 256 + [3] * len(specials) + [1] * len(merged)
    assert special_at == 259
    return tokenizer, tokens, scores, types


def wrap(tokenizer, template, bos=None, eos=None):
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
    fast.chat_template = template
    return fast


def randomise(model, scale=1.0):
    """Weights for which everything matters: norms are no ones, biases no zeros, attention looks somewhere."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                base = parameter.mean().round()  # 1, or Gemma's 0
                parameter.copy_(base + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            elif "embed" in name:
                tied = getattr(model.config, "tie_word_embeddings", False)
                parameter.copy_(noise / math.sqrt(parameter.shape[-1]) if tied else noise)
            else:
                parameter.copy_(noise * scale * 1.5 / math.sqrt(parameter.shape[-1]))
            # As files of sixteen bits hold it; everything is computed in thirty-two.
            parameter.copy_(parameter.bfloat16().float())
    return model.eval()


def save_model(model, folder):
    # A copy: the frequencies of rotary embeddings would not come back from sixteen bits.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)


def prompt_tokens(count, top):
    return [(i * 37 + i * i % 11 + 5) % top for i in range(count)]


@torch.no_grad()
def expect_decoder(model, tokenizer, top):
    tokens = prompt_tokens(PROMPT, top)
    ids = torch.tensor([tokens])
    logits = model(ids).logits[0, -1].double()
    following, margins = [], []
    row, seen = logits, ids
    for _ in range(FOLLOWING):
        best = torch.topk(row, 2)
        following.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 4))
        seen = torch.cat([seen, best.indices[:1][None]], 1)
        row = model(seen).logits[0, -1].double()
    expected = {
        "prompt": tokens,
        "logits": [round(float(v), 6) for v in logits],
        "following": following,
        "margins": margins,
    }
    expected |= expect_tokens(tokenizer)
    return expected


def expect_tokens(tokenizer):
    texts = [{"text": text, "tokens": tokenizer(text)["input_ids"]} for text in TEXTS]
    chats = []
    for messages in CHAT:
        try:
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
            chats.append({"messages": messages, "tokens": list(ids)})
        except Exception as error:  # the template refuses
            chats.append({"messages": messages, "refused": str(error)})
    return {"texts": texts, "chats": chats}


def save(folder, expected):
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")


DECODER = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=CONTEXT,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)


def rope(theta=10000.0, kind="default", **more):
    return {"rope_theta": theta, "rope_type": kind, **more}


def decoders_to_make():
    t = transformers
    longrope = dict(
        short_factor=[1.0 + 0.1 * i for i in range(16)],
        long_factor=[1.0 + 0.5 * i for i in range(16)],
        original_max_position_embeddings=CONTEXT,
    )
    llama3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    yarn = dict(factor=4.0, original_max_position_embeddings=128)
    made = {
        "llama": t.LlamaConfig(**DECODER),
        "llama3": t.LlamaConfig(**DECODER | dict(tie_word_embeddings=True), rope_parameters=rope(500000.0, "llama3", **llama3)),
        "llama-linear": t.LlamaConfig(**DECODER | dict(num_attention_heads=4, num_key_value_heads=2), head_dim=32, attention_bias=True, rope_parameters=rope(kind="linear", factor=4.0)),
        "mistral": t.MistralConfig(**DECODER | dict(num_attention_heads=4, num_key_value_heads=2), sliding_window=24),
        "qwen2": t.Qwen2Config(**DECODER),
        "qwen2-yarn": t.Qwen2Config(**DECODER, rope_parameters=rope(kind="yarn", **yarn)),
        "qwen3": t.Qwen3Config(**DECODER | dict(num_attention_heads=4, num_key_value_heads=2), head_dim=32),
        "qwen3-moe": t.Qwen3MoeConfig(**DECODER, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True),
        "mixtral": t.MixtralConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
        "gemma2": t.Gemma2Config(**DECODER | dict(num_attention_heads=4, num_key_value_heads=2), head_dim=32, sliding_window=24, query_pre_attn_scalar=32, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
        "gemma3": t.Gemma3TextConfig(**DECODER | dict(num_hidden_layers=6), head_dim=32, sliding_window=24, query_pre_attn_scalar=32),
        "phi3": t.Phi3Config(**DECODER, sliding_window=None),
        "phi3-longrope": t.Phi3Config(**DECODER | dict(max_position_embeddings=4 * CONTEXT), original_max_position_embeddings=CONTEXT, sliding_window=24, rope_parameters=rope(kind="longrope", **longrope)),
    }
    return made


def tokenizer_for(name):
    if name in ("llama", "mistral", "mixtral"):
        tokenizer, *spm = sentence_piece(True, ["[INST]"])
        return wrap(tokenizer, PLAIN_CHAT, "<s>", "</s>"), ("llama", *spm, True)
    if name in ("gemma2", "gemma3"):
        tokenizer, *spm = sentence_piece(False, ["<start_of_turn>", "<end_of_turn>"])
        return wrap(tokenizer, GEMMA_CHAT, "<s>", "</s>"), ("llama", *spm, False)
    if name.startswith("llama"):
        tokenizer = byte_level(LLAMA3_SPLIT, ["<|begin_of_text|>", "<|im_start|>", "<|im_end|>"])
        bos = tokenizer.token_to_id("<|begin_of_text|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B", special_tokens=[("<|begin_of_text|>", bos)]
        )
        return wrap(tokenizer, CHATML, "<|begin_of_text|>", "<|im_end|>"), ("llama-bpe",)
    tokenizer = byte_level(QWEN2_SPLIT, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC())
    return wrap(tokenizer, CHATML, None, "<|im_end|>"), ("qwen2",)


ARCHITECTURES = {
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "mixtral": "LLAMA",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "qwen3_moe": "QWEN3MOE",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
    "phi3": "PHI3",
}


def write_gguf(path, model, tokenizer, about, quantised):
    """As llama.cpp's converter writes the model. Quantised weights are put back into the model, so that it is the reference of
    what the file holds."""
    config = model.config
    architecture = gguf.MODEL_ARCH[ARCHITECTURES[config.model_type]]
    name = gguf.MODEL_ARCH_NAMES[architecture]
    writer = gguf.GGUFWriter(str(path), name)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    parameters = config.rope_parameters
    own = parameters.get("full_attention", parameters)
    writer.add_rope_freq_base(own["rope_theta"])
    kind = own.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(own["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(own["factor"])
        writer.add_rope_scaling_orig_ctx_len(own["original_max_position_embeddings"])
    if kind == "longrope":
        writer.add_rope_scaling_orig_ctx_len(own["original_max_position_embeddings"])
        stretched = config.max_position_embeddings / own["original_max_position_embeddings"]
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretched) / math.log(own["original_max_position_embeddings"])))
    window = getattr(config, "sliding_window", None)
    if window and config.model_type in ("gemma2", "gemma3_text", "phi3", "mistral"):
        writer.add_sliding_window(window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        if config.model_type == "qwen3_moe":
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)

    backend = tokenizer.backend_tokenizer
    if about[0] == "llama":
        _, tokens, scores, types, prefix = about
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_add_space_prefix(prefix)
        writer.add_add_bos_token(True)
        writer.add_unk_token_id(0)
    else:
        tokens = [backend.id_to_token(i) for i in range(backend.get_vocab_size())]
        specials = set(tokenizer.all_special_tokens) | {t.content for t in backend.get_added_tokens_decoder().values()}
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(about[0])
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in specials else 1 for token in tokens])
        merges = json.loads(backend.to_str())["model"]["merges"]
        writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in merges])
        writer.add_add_bos_token(tokenizer.bos_token is not None)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)

    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    state = dict(model.state_dict())

    def put(name, tensor):
        """Writes it; returns what the file then says."""
        data = tensor.float().contiguous().numpy()
        small = data.ndim == 1 or name.endswith("ffn_gate_inp.weight") or name.startswith("rope")
        if small or data.shape[-1] % 32:
            writer.add_tensor(name, data.astype(np.float32))
            return tensor
        packed = gguf.quants.quantize(data, quantised)
        writer.add_tensor(name, packed, raw_dtype=quantised)
        return torch.from_numpy(gguf.quants.dequantize(packed, quantised).reshape(data.shape))

    def permuted(tensor, count, back=False):
        shape = (count, head_dim // 2, 2) if back else (count, 2, head_dim // 2)
        return tensor.reshape(*shape, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)

    for hf_name, tensor in state.items():
        if hf_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        gemma = config.model_type.startswith("gemma") and hf_name.endswith("norm.weight")
        if ".experts." in hf_name:
            layer = hf_name.split(".")[2]
            if hf_name.endswith("gate_up_proj"):
                half = tensor.shape[1] // 2
                gate = put(f"blk.{layer}.ffn_gate_exps.weight", tensor[:, :half])
                up = put(f"blk.{layer}.ffn_up_exps.weight", tensor[:, half:])
                state_value = torch.cat([gate, up], 1)
            else:
                state_value = put(f"blk.{layer}.ffn_down_exps.weight", tensor)
            tensor.copy_(state_value)
            continue
        mapped = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if mapped is None and hf_name.endswith("mlp.gate.weight"):
            mapped = f"blk.{hf_name.split('.')[2]}.ffn_gate_inp.weight"
        assert mapped, hf_name
        if architecture == gguf.MODEL_ARCH.LLAMA and ("q_proj" in hf_name or "k_proj" in hf_name):
            count = heads if "q_proj" in hf_name else kv_heads
            tensor.copy_(permuted(put(mapped, permuted(tensor, count)), count, True))
        elif gemma:
            put(mapped, tensor + 1)
        else:
            tensor.copy_(put(mapped, tensor))
    if kind == "llama3":
        inverse = model.model.rotary_emb.inv_freq
        plain = 1.0 / (own["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim))
        put("rope_freqs.weight", plain / inverse)
    if kind == "longrope":
        put("rope_factors_long.weight", torch.tensor(own["long_factor"]))
        put("rope_factors_short.weight", torch.tensor(own["short_factor"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Which of them also become GGUF files: in the numbers of the model, or in eight bits, which our own code has products for.
GGUF_TOO = {
    "llama": ["Q8_0"],
    "llama3": ["Q8_0"],
    "llama-linear": ["BF16"],
    "qwen2": ["Q8_0"],
    "qwen2-yarn": ["BF16"],
    "qwen3": ["Q8_0"],
    "qwen3-moe": ["Q8_0"],
    "mistral": ["BF16"],
    "mixtral": ["BF16"],
    "gemma2": ["BF16"],
    "gemma3": ["Q8_0"],
    "phi3": ["BF16"],
    "phi3-longrope": ["BF16"],
}


def make_decoder(out, name, config):
    config._attn_implementation = "eager"
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"
    tokenizer, about = tokenizer_for(name)
    top = min(len(tokenizer), VOCABULARY)
    model = randomise(transformers.AutoModelForCausalLM.from_config(config).float())
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    save(folder, expect_decoder(model, tokenizer, top))
    # Of 32 bits first: what a quantised file holds is put back into the model.
    for quantised in (["F32"] if F32_TOO else []) + GGUF_TOO.get(name, []):
        form = quantised.lower()
        folder = out / f"{name}-gguf-{form}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kind = gguf.GGMLQuantizationType[quantised]
        with torch.no_grad():
            write_gguf(folder / "model.gguf", model, tokenizer, about, kind)
        save(folder, expect_decoder(model, tokenizer, top))


# ---- Encoders

SENTENCES = [
    "Who led the team in sacks?",
    "The Panthers defense led the team with 24 interceptions, 60% of the league.",
    "x",
    "",
    "Most of the Amazon rainforest is contained within Brazil. " * 4,
]
PAIRS = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[0], SENTENCES[4]), (SENTENCES[1], SENTENCES[2])]
ENCODER = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=130,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def word_piece(cls, sep, pad, unk):
    tokenizer = Tokenizer(models.WordPiece(unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = [cls, pad, sep, unk]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    tokenizer.post_processor = processors.BertProcessing(ids[1], ids[0])
    return wrap_encoder(tokenizer, cls, sep, pad, unk)


def roberta_tokenizer():
    tokenizer = byte_level(None, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    ids = {token: tokenizer.token_to_id(token) for token in ("<s>", "</s>")}
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
    return wrap_encoder(tokenizer, "<s>", "</s>", "<pad>", "<unk>")


def wrap_encoder(tokenizer, cls, sep, pad, unk):
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk
    )


def encoders_to_make():
    t = transformers
    bert = lambda: word_piece("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    nli = {"id2label": {0: "contradiction", 1: "entailment", 2: "neutral"}, "label2id": {"contradiction": 0, "entailment": 1, "neutral": 2}}
    one = {"num_labels": 1}
    distil = dict(vocab_size=VOCABULARY, dim=64, hidden_dim=96, n_layers=2, n_heads=2, max_position_embeddings=128, dropout=0.0, attention_dropout=0.0)
    modern = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=2, max_position_embeddings=128, local_attention=16, pad_token_id=1, cls_token_id=0, sep_token_id=2, bos_token_id=0, eos_token_id=2)
    # Tokens, configuration, whether it scores pairs, and how it pools.
    return {
        "bert": (bert, t.BertConfig(**ENCODER), False, "mean"),
        "bert-nli": (bert, t.BertConfig(**ENCODER, **nli), True, None),
        "roberta": (roberta_tokenizer, t.RobertaConfig(**ENCODER, type_vocab_size=1, pad_token_id=1), False, "mean"),
        "roberta-cross": (roberta_tokenizer, t.RobertaConfig(**ENCODER, type_vocab_size=1, pad_token_id=1, **one), True, None),
        "xlm-roberta-dense": (roberta_tokenizer, t.XLMRobertaConfig(**ENCODER, type_vocab_size=1, pad_token_id=1), False, "weightedmean+dense"),
        "distilbert": (bert, t.DistilBertConfig(**distil), False, "cls"),
        "distilbert-cross": (bert, t.DistilBertConfig(**distil, **one), True, None),
        "deberta-nli": (bert, t.DebertaV2Config(**ENCODER, **nli, relative_attention=True, position_buckets=16, max_relative_positions=-1, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0, pooler_hidden_size=64), True, None),
        "modernbert": (bert, t.ModernBertConfig(**modern), False, "mean"),
        "modernbert-cross": (bert, t.ModernBertConfig(**modern, **one, classifier_pooling="cls"), True, None),
        "mpnet": (lambda: word_piece("<s>", "</s>", "<pad>", "[UNK]"), t.MPNetConfig(**ENCODER, relative_attention_num_buckets=32), False, "max"),
    }


@torch.no_grad()
def pooled(hidden, how):
    if how == "mean":
        return hidden.mean(0)
    if how == "cls":
        return hidden[0]
    if how == "max":
        return hidden.max(0).values
    weights = torch.arange(1, len(hidden) + 1).float()[:, None]
    return (hidden * weights).sum(0) / weights.sum()


@torch.no_grad()
def make_encoder(out, name, tokenizer, config, cross, how):
    config._attn_implementation = "eager"
    tokenizer = tokenizer()
    kind = transformers.AutoModelForSequenceClassification if cross else transformers.AutoModel
    model = randomise(kind.from_config(config).float(), 1.5)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    names = ("input_ids", "token_type_ids", "attention_mask")
    takes = [n for n in names if n != "token_type_ids" or config.model_type == "bert"]

    def run(*texts):
        given = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=128, return_token_type_ids=True)
        return model(**{n: given[n] for n in takes})

    if cross:
        logits = [run(*pair).logits[0] for pair in PAIRS]
        if config.num_labels > 1:
            # The log-odds of entailment.
            logits = [x[1] - torch.logsumexp(x[[0, 2]], 0) for x in logits]
        expected = {"pairs": PAIRS, "logits": [round(float(x), 6) for x in logits]}
    else:
        layers = []
        if how.endswith("+dense"):
            generator = torch.Generator().manual_seed(3)
            dense = torch.nn.Linear(64, 32)
            dense.weight.copy_(torch.randn(32, 64, generator=generator) / 8)
            dense.bias.copy_(torch.randn(32, generator=generator) / 8)
            layers = [dense, torch.nn.Tanh()]
            pool = {"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 64}
            write = lambda path, value: (path.parent.mkdir(exist_ok=True), path.write_text(json.dumps(value)))
            package = "sentence_transformers.models."
            modules = ["Transformer", "Pooling", "Dense", "Normalize"]
            paths = ["", "1_Pooling", "2_Dense", "3_Normalize"]
            write(folder / "modules.json", [{"idx": i, "name": str(i), "path": p, "type": package + m} for i, (m, p) in enumerate(zip(modules, paths))])
            write(folder / "1_Pooling/config.json", pool)
            write(folder / "2_Dense/config.json", {"in_features": 64, "out_features": 32, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"})
            write(folder / "config_sentence_transformers.json", {"prompts": {"query": "query: "}})
            safetensors.torch.save_file({"linear.weight": dense.weight.data, "linear.bias": dense.bias.data}, folder / "2_Dense/model.safetensors")
        vectors = []
        for text in SENTENCES:
            vector = pooled(run(text).last_hidden_state[0], how.split("+")[0])
            for layer in layers:
                vector = layer(vector)
            vectors.append([round(float(v), 6) for v in vector / vector.norm()])
        expected = {"texts": SENTENCES, "vectors": vectors, "pooling": how.split("+")[0]}
    save(folder, expected)


# Whether every one of them also becomes a GGUF file of 32 bits.
F32_TOO = False


def main():
    global F32_TOO
    arguments = [argument for argument in sys.argv[1:] if argument != "--f32"]
    F32_TOO = len(arguments) < len(sys.argv) - 1
    out, only = Path(arguments[0]), arguments[1:]
    for name, config in decoders_to_make().items():
        if not only or name in only:
            print(name, file=sys.stderr)
            make_decoder(out, name, config)
    for name, parts in encoders_to_make().items():
        if not only or name in only:
            print(name, file=sys.stderr)
            make_encoder(out, name, *parts)


if __name__ == "__main__":
    main()
