"""Runs an installed BERT encoder on ONNX Runtime and on sentence-transformers, for poq-bench-models.

Both get the weights that our own code runs (f32, out of the installed model.safetensors), inputs sorted by length, in batches
of 32 padded to their longest: what sentence-transformers does by itself. ONNX Runtime gets a graph exported from those
weights, with every optimisation it has.
"""

import pathlib
import sys

import numpy
import onnxruntime
import sentence_transformers
import torch
import transformers
from line_server import serve, timed
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from hugging_face import hugging_face_folder  # noqa: E402

BATCH = 32


def export(network, path):
    """Writes a BERT as an ONNX graph with free batch size and length."""
    ids = torch.ones((2, 8), dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    free = {0: "batch", 1: "length"}
    torch.onnx.export(
        network,
        (ids, ids, torch.zeros_like(ids)),
        str(path),
        input_names=names,
        output_names=["output"],
        dynamic_axes={**{name: free for name in names}, "output": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


class Tokens(torch.nn.Module):
    """A BERT that gives its tokens' vectors, or its head's logits, as one tensor."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.network(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=False
        )[0]


class Peer:
    def load(self, folder, role, pooling, max_tokens, threads):
        torch.set_num_threads(threads)
        self.pair = role == "cross-encoder"
        self.pooling = pooling
        folder = hugging_face_folder(folder, role, max_tokens)
        if self.pair:
            self.torch_model = CrossEncoder(
                str(folder), max_length=max_tokens, device="cpu", activation_fn=torch.nn.Identity()
            )
            network = self.torch_model.model
        else:
            transformer = modules.Transformer(str(folder), max_seq_length=max_tokens)
            pool = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)
            self.torch_model = SentenceTransformer(
                modules=[transformer, pool, modules.Normalize()], device="cpu"
            )
            network = transformer.auto_model

        # An export wants the plain attention; the runtime fuses it again.
        plain = type(network).from_pretrained(str(folder), attn_implementation="eager").eval()
        graph = folder / "model.onnx"
        with torch.no_grad():
            export(Tokens(plain), graph)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        return {
            "onnxruntime": onnxruntime.__version__,
            "sentence_transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }

    def onnx_batch(self, inputs):
        encodings = self.tokenizer.encode_batch(inputs)
        mask = numpy.array([e.attention_mask for e in encodings], dtype=numpy.int64)
        output = self.session.run(
            None,
            {
                "input_ids": numpy.array([e.ids for e in encodings], dtype=numpy.int64),
                "attention_mask": mask,
                "token_type_ids": numpy.array([e.type_ids for e in encodings], dtype=numpy.int64),
            },
        )[0]
        if self.pair:
            return output[:, 0]
        if self.pooling == "cls":
            pooled = output[:, 0]
        else:
            weight = mask[:, :, None].astype(numpy.float32)
            pooled = (output * weight).sum(1) / weight.sum(1)
        return pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)

    def onnx(self, inputs):
        length = (lambda pair: sum(map(len, pair))) if self.pair else len
        order = sorted(range(len(inputs)), key=lambda i: -length(inputs[i]))
        outputs = [None] * len(inputs)
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            for index, row in zip(indices, self.onnx_batch([inputs[i] for i in indices])):
                outputs[index] = row
        return numpy.array(outputs)

    def torch(self, inputs):
        if self.pair:
            return self.torch_model.predict(inputs, batch_size=BATCH, show_progress_bar=False)
        return self.torch_model.encode(inputs, batch_size=BATCH, show_progress_bar=False)

    def run(self, backend, inputs):
        inputs = [tuple(pair) for pair in inputs] if self.pair else inputs
        function = {"onnxruntime": self.onnx, "sentence-transformers": self.torch}[backend]
        outputs, seconds = timed(lambda: function(inputs))
        return {"seconds": seconds, "outputs": numpy.asarray(outputs, dtype=numpy.float64).tolist()}

    def single(self, backend, inputs):
        """Seconds of each input, asked one at a time."""
        inputs = [tuple(pair) for pair in inputs] if self.pair else inputs
        function = {"onnxruntime": self.onnx, "sentence-transformers": self.torch}[backend]
        return {"seconds": [timed(lambda: function([one]))[1] for one in inputs]}


if __name__ == "__main__":
    peer = Peer()
    serve({"load": peer.load, "run": peer.run, "single": peer.single})
