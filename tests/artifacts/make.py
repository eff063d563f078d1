"""Small artifacts of today's schemas, to keep before one of them changes: python tests/artifacts/make.py FOLDER."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from commands import good, user, write
from tiny_models import make_text_tokenizer, tiny_catalog, tiny_checkpoint

SMALL = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 32, "spare_rows": 0,
}  # fmt: skip


def bundle(output: Path, histories: Path) -> None:
    """A bundle of six items with an engine and its tuning."""
    tiny_checkpoint(Path("target"), levels=2, codes=2, **SMALL)
    tiny_checkpoint(Path("draft"), levels=2, codes=2, seed=1, **SMALL)
    tiny_catalog(Path("index.json"), items=6, levels=2, codes=2)
    good(
        "export", "--target", "target", "--draft", "draft", "--catalog", "index.json", "--history-length", 4,
        "--no-checkpoints", "--output", output,
    )  # fmt: skip
    good("build-engine", output, "--threads", 1)
    good("tune", output, histories, "--threads", 1, "--top-k", 2)


def text(output: Path, pool: Path) -> None:
    """A text bundle and a pool of texts for it."""
    tiny_checkpoint(Path("writer"), tokenizer=make_text_tokenizer(vocabulary=270), **SMALL)
    good("export", "--text", "--target", "writer", "--no-checkpoints", "--output", output)
    texts = write(Path("texts.jsonl"), *({"id": f"u{i}", "text": f" desk lamp walnut {i}"} for i in range(3)))
    good("build-pool", texts, "--tokenizer", output, "--depth", 4, "--query", 2, "--output", pool)


def partitions(bundle: Path, histories: Path, output: Path) -> None:
    """What a run on a cluster writes."""
    good("infer", bundle, histories, "-o", output, "-k", 2, "--speculation", "fixed", "--ray", "--workers", 1)


def records(output: Path) -> None:
    """What `train` and `align` write beside weights."""
    shop = Path("shop")
    shop.mkdir()
    tiny_catalog(shop / "index.json", items=6, levels=2, codes=2)
    for name in ("train", "valid", "test"):
        entries = ((f"u{i}", [str((i + j) % 6) for j in range(2 + i % 3)], [str((i + 3) % 6)]) for i in range(8))
        write(shop / f"{name}.jsonl", *({"user": u, "items": items, "labels": after} for u, items, after in entries))
    brief = ["--data", "shop", "--steps", 1, "--history-length", 4]
    good("train", *brief, "--config", "1x32", "--tokenizer", "target", "--output", "trained")
    good("align", *brief, "--target", "target", "--draft", "trained", "--top-k", 2, "--output", "aligned")
    output.mkdir()
    for file in (Path("trained/training.json"), Path("aligned/alignment.json")):
        (output / file.name).write_bytes(file.read_bytes())


def main(folder: Path) -> None:
    work = folder / "made-from"
    work.mkdir(parents=True)
    os.chdir(work)  # so that no artifact names a path of this machine
    histories = write(
        Path("histories.jsonl"), *(user(f"u{i}", *(str((i + j) % 6) for j in range(1 + i % 4))) for i in range(6))
    )
    bundle(Path("../bundle"), histories)
    good("build-pool", "--items", histories, "--output", "../item-pool")
    text(Path("../text"), Path("../text-pool"))
    records(Path("../training"))
    some = write(Path("some.jsonl"), user("u1", "0", "1"), user("u2", "2"), "no JSON", user("u3", "4", "5", "1"))
    partitions(Path("../bundle"), some, Path("../parts"))
    print(json.dumps({path.name: sum(f.stat().st_size for f in path.rglob("*.*")) for path in folder.iterdir()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
