"""Runs decoders and BERT encoders on PyTorch and transformers, for poq-bench-models gpu-check.

Both sides get the same folders and the same inputs. Batches are what transformers does by itself: prompts of one length side
by side, texts sorted by length and padded to the longest of 128.
"""

import gc

import torch
import transformers
from line_server import serve, timed
from tokenizers import Tokenizer

BATCH = 128

transformers.utils.logging.disable_progress_bar()


class Peer:
    def __init__(self):
        self.key, self.model = None, None

    def forget(self):
        self.key, self.model = None, None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return {}

    def load(self, kind, folder, device, dtype):
        """The model of a folder; the one asked for last is kept."""
        key = (kind, folder, device, dtype)
        if self.key != key:
            self.forget()
            options = {"dtype": getattr(torch, dtype)}
            try:  # straight to the device, where accelerate is there
                model = kind.from_pretrained(folder, device_map=device, **options)
            except (ImportError, ValueError):
                model = kind.from_pretrained(folder, **options).to(device)
            self.model = model.eval()
            self.key = key
        return self.model

    def about(self, device):
        torch.zeros(1, device=device)
        reply = {"torch": torch.__version__, "transformers": transformers.__version__}
        if device.startswith("cuda"):
            reply["card"] = torch.cuda.get_device_name(device)
        return reply

    @torch.inference_mode()
    def logits(self, folder, device, dtype, tokens):
        model = self.load(transformers.AutoModelForCausalLM, folder, device, dtype)
        output = model(input_ids=torch.tensor([tokens], device=device), logits_to_keep=1)
        return {"logits": output.logits[0, -1].float().cpu().tolist()}

    @torch.inference_mode()
    def generate(self, folder, device, dtype, prompts, new_tokens):
        model = self.load(transformers.AutoModelForCausalLM, folder, device, dtype)
        ids = torch.tensor(prompts, device=device)

        def run():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )
            return output[0, ids.shape[1] :].tolist()

        tokens, seconds = timed(run)
        return {"seconds": seconds, "tokens": tokens}

    @torch.inference_mode()
    def encode(self, folder, device, dtype, pairs, pooling, inputs, rounds):
        kind = transformers.AutoModelForSequenceClassification if pairs else transformers.AutoModel
        model = self.load(kind, folder, device, dtype)
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        tokenizer.enable_truncation(512)
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        texts = [tuple(pair) for pair in inputs] if pairs else [text for _, text in inputs]
        length = (lambda pair: sum(map(len, pair))) if pairs else len
        order = sorted(range(len(texts)), key=lambda i: -length(texts[i]))

        def run():
            outputs = [None] * len(texts)
            for start in range(0, len(order), BATCH):
                indices = order[start : start + BATCH]
                encodings = tokenizer.encode_batch([texts[i] for i in indices])
                tensor = lambda rows: torch.tensor(rows).to(device)  # noqa: E731
                mask = tensor([e.attention_mask for e in encodings])
                output = model(
                    input_ids=tensor([e.ids for e in encodings]),
                    attention_mask=mask,
                    token_type_ids=tensor([e.type_ids for e in encodings]),
                )
                if pairs:
                    rows = output.logits
                else:
                    vectors = output.last_hidden_state
                    if pooling == "cls":
                        rows = vectors[:, 0]
                    else:
                        weight = mask.unsqueeze(2).to(vectors.dtype)
                        rows = (vectors * weight).sum(1) / weight.sum(1)
                    rows = torch.nn.functional.normalize(rows.float(), dim=1)
                for index, row in zip(indices, rows.float().cpu()):
                    outputs[index] = row
            return outputs

        outputs = run()
        seconds = min(timed(run)[1] for _ in range(max(1, rounds - 1)))
        return {"seconds": seconds, "outputs": [row.tolist() for row in outputs]}


peer = Peer()
serve(
    {
        "about": peer.about,
        "forget": peer.forget,
        "logits": peer.logits,
        "generate": peer.generate,
        "encode": peer.encode,
    }
)
