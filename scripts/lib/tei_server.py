"""A server with text-embeddings-inference's API (/info, /embed, /rerank) over sentence-transformers, for scripts/check-endpoints.sh:
TEI itself is in no package registry.

    tei_server.py FOLDER bi-encoder|cross-encoder MAX_TOKENS POOLING NAME PORT
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from hugging_face import hugging_face_folder
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules

folder, role, max_tokens, pooling, name, port = sys.argv[1:]
torch.set_num_threads(1)
folder = hugging_face_folder(folder, role, int(max_tokens))
if role == "cross-encoder":
    model = CrossEncoder(str(folder), max_length=int(max_tokens), device="cpu", activation_fn=torch.nn.Identity())
else:
    transformer = modules.Transformer(str(folder), max_seq_length=int(max_tokens))
    pool = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)
    model = SentenceTransformer(modules=[transformer, pool], device="cpu")


class Handler(BaseHTTPRequestHandler):
    def say(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            return self.say(200, {})
        if self.path != "/info":
            return self.say(404, {"error": "not found", "error_type": "not_found"})
        kind = {"reranker": {}} if role == "cross-encoder" else {"embedding": {"pooling": pooling}}
        self.say(
            200,
            {
                "model_id": name,
                "model_sha": None,
                "model_dtype": "float32",
                "model_type": kind,
                "max_input_length": int(max_tokens),
                "max_client_batch_size": 32,
            },
        )

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/embed" and role != "cross-encoder":
            texts = request["inputs"]
            texts = [texts] if isinstance(texts, str) else texts
            if any(not text for text in texts):
                return self.say(422, {"error": "`inputs` cannot be empty", "error_type": "validation"})
            vectors = model.encode(texts, normalize_embeddings=request.get("normalize", True), show_progress_bar=False)
            return self.say(200, vectors.tolist())
        if self.path == "/rerank" and role == "cross-encoder":
            logits = model.predict([(request["query"], text) for text in request["texts"]], show_progress_bar=False)
            scores = torch.tensor(logits) if request.get("raw_scores") else torch.sigmoid(torch.tensor(logits))
            ranks = [{"index": index, "score": float(score)} for index, score in enumerate(scores)]
            return self.say(200, sorted(ranks, key=lambda rank: -rank["score"]))
        self.say(424, {"error": "model is not of that kind", "error_type": "backend"})

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
