"""Compares this project's scores with the reference implementations; scripts/check-scores.sh runs it.

Usage: check-scores.py make-pairs DATA_FOLDER > pairs.jsonl
       check-scores.py compare pairs.jsonl ours.json squad_eval.py
"""

import importlib.util
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
from hugging_face import hugging_face_folder  # noqa: E402

# Texts that implementations like to treat differently.
ODD = [
    ("", ""),
    ("", "something"),
    ("the", "a"),
    ("The U.S.A. — a  nation", "the usa — nation"),
    ("5½ sacks", "5 1/2 sacks"),
    ("Café naïve", "cafe naive"),
    ("I don't know", "I do not know"),
    ("x\x1cy", "x y"),
    ("日本語の文章", "日本語"),
    ("مرحبا بالعالم", "hello world"),
    ("🦜🌴", "parrot"),
    ("police killed the gunman", "police kill the gunman"),
    ("A_B-c", "a b c"),
    ("İstanbul", "istanbul"),
    ("word " * 700, "word word"),
]


def make_pairs(folder):
    """Some hundred pairs of the installed data: a summary beside what it sums up, a question beside its paragraph."""
    lines = lambda name: [json.loads(line) for line in (pathlib.Path(folder) / name).open(encoding="utf-8")]
    for item in lines("consensus-summary.jsonl")[:150]:
        yield item["references"][0], item["context"].split("\n")[0]
    for item in lines("aclsum.jsonl"):
        yield item["references"][0], item["context"]
    for item in lines("qa.jsonl")[:100]:
        yield item["question"], item["context"]
    yield from ODD


def module(path):
    spec = importlib.util.spec_from_file_location("squad_eval", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def compare(pairs, ours, squad_eval):
    import scipy.stats
    import torch
    from rouge_score import rouge_scorer
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    worst = []

    def show(what, reference, mine, theirs, limit):
        difference = max((abs(a - b) for a, b in zip(mine, theirs)), default=0.0)
        worst.append(difference <= limit)
        verdict = "ok" if difference <= limit else "TOO LARGE"
        print(f"| {what} | {reference} | {len(mine)} | {difference:.1e} | {limit:.0e} | {verdict} |")

    print("| what | beside | values | largest difference | limit | |")
    print("|---|---|---|---|---|---|")
    squad = module(squad_eval)
    show("token F1", "SQuAD's official script", ours["token_f1"], [squad.f1_score(a, b) for a, b in pairs], 1e-12)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rouge = [scorer.score(b, a)["rougeL"].fmeasure for a, b in pairs]
    show("ROUGE-L", "rouge_score", ours["rouge_l"], rouge, 1e-12)

    torch.set_num_threads(2)
    folder = pathlib.Path(ours["models_dir"])

    limits = {"all-minilm-l6-v2": 256, "paraphrase-minilm-l3-v2": 128}
    for name, cosines in ours["cosine"].items():
        limit = limits.get(name, 512)
        installed = str(hugging_face_folder(folder / name, "bi-encoder", limit))
        transformer = modules.Transformer(installed, max_seq_length=limit)
        mode = "cls" if name.startswith("bge") else "mean"
        pooling = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode=mode)
        model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
        a = model.encode([a for a, _ in pairs], normalize_embeddings=True, convert_to_tensor=True)
        b = model.encode([b for _, b in pairs], normalize_embeddings=True, convert_to_tensor=True)
        show(f"cosine, {name}", "sentence-transformers", cosines, (a * b).sum(dim=1).tolist(), 1e-3)
    for name, logits in ours["logit"].items():
        installed = str(hugging_face_folder(folder / name, "cross-encoder", 512))
        model = CrossEncoder(installed, max_length=512, device="cpu", activation_fn=torch.nn.Identity())
        theirs = model.predict([list(pair) for pair in pairs]).tolist()
        # Logits go from about -11 to 11; what is scored by is the sigmoid of a quarter.
        sigmoid = lambda values: torch.sigmoid(torch.tensor(values, dtype=torch.float64) / 4).tolist()
        show(f"logit, {name}", "sentence-transformers", logits, theirs, 1e-2)
        show(f"score, {name}", "sentence-transformers", sigmoid(logits), sigmoid(theirs), 1e-3)
    for name, (pearson, spearman) in ours["correlation"].items():
        x, y = ours["cosine"][name], ours["token_f1"]
        show(f"Pearson, {name}", "scipy", [pearson], [scipy.stats.pearsonr(x, y).statistic], 1e-9)
        show(f"Spearman, {name}", "scipy", [spearman], [scipy.stats.spearmanr(x, y).statistic], 1e-9)
    return all(worst)


def main():
    if sys.argv[1] == "make-pairs":
        for pair in make_pairs(sys.argv[2]):
            print(json.dumps(pair, ensure_ascii=False))
        return 0
    pairs = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
    ours = json.load(open(sys.argv[3], encoding="utf-8"))
    return 0 if compare(pairs, ours, sys.argv[4]) else 1


if __name__ == "__main__":
    sys.exit(main())
