"""Long prompts and wide beams over a large vocabulary: the peak memory without a limit, and within one.

Run: python -m benchmarks.scale.wide_lists [--folder DIR] [--vocabulary 152000] [--prompt 2500] [--top-k 1000]
     [--levels 4] [--batch 8] [--memory 2GB]
Makes a random pair of models with a head of so many rows, and a catalog that has over K items at every level below the
first; runs `specbeam infer` without a limit (until it has --enough), one request at a time without a limit, and within
one; and compares the lists, by the rule of ties. Exit 1 where the limit was exceeded or a list differs.
"""

import json
import subprocess
import sys
import tempfile
from math import inf
from pathlib import Path
from time import perf_counter, sleep

import click
import numpy as np
from transformers import PreTrainedTokenizerFast

from benchmarks.reliability.memory_infer import peak_of
from benchmarks.shared import print_table, ranking_fault
from specbeam.verbs.options import MemorySize
from tiny_models import WORDS, identifier_tokens, make_tokenizer, tiny_checkpoint

TINY = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 16, "initializer_range": 0.06}  # fmt: skip
CODES = 64  # tokens of a level
EVERY = 0.02  # seconds between two looks at a process


def tokenizer_of(vocabulary: int, levels: int) -> PreTrainedTokenizerFast:
    """As the tests', and filled up with words to a vocabulary of so many."""
    names = identifier_tokens(levels, CODES)
    return make_tokenizer([*names, *(f"<w{i}>" for i in range(vocabulary - len(names) - len(WORDS)))])


def write_catalog(path: Path, items: int, levels: int) -> None:
    """Random identifiers of so many levels."""
    codes = np.random.default_rng(0).integers(0, CODES, (items, levels))
    index = {str(i): [f"<{chr(97 + d)}_{c}>" for d, c in enumerate(row)] for i, row in enumerate(codes.tolist())}
    path.write_text(json.dumps(index), encoding="utf-8")


def make_bundle(folder: Path, vocabulary: int, levels: int, prompt: int, top_k: int, items: int) -> Path:
    """A pair of random models, exported and built."""
    bundle = folder / "bundle"
    if bundle.exists():
        return bundle
    tokenizer = tokenizer_of(vocabulary, levels)
    for name, layers in (("target", 2), ("draft", 1)):
        settings = TINY | {"num_hidden_layers": layers, "max_position_embeddings": prompt + levels + 8}
        tiny_checkpoint(folder / name, seed=layers, tied=True, tokenizer=tokenizer, spare_rows=0, **settings)
    write_catalog(folder / "index.json", items, levels)
    words: list[object] = ["export", "--target", folder / "target", "--draft", folder / "draft", "--catalog"]
    words += [folder / "index.json", "--output", bundle, "--history-length", prompt // levels, "--max-top-k", top_k]
    for command in (words, ["build-engine", bundle]):
        subprocess.run([sys.executable, "-m", "specbeam.cli", *map(str, command)], check=True)
    return bundle


def write_users(path: Path, users: int, prompt: int, levels: int, items: int) -> None:
    """Histories that fill the prompt, nearly."""
    rng = np.random.default_rng(1)
    with path.open("w", encoding="utf-8") as file:
        for user in range(users):
            history = rng.integers(0, items, prompt // levels - user % 3)
            file.write(json.dumps({"user": f"u{user}", "items": [str(i) for i in history.tolist()]}) + "\n")


def measured(command: list[str], enough: float = inf) -> tuple[float, float]:
    """Seconds that a command takes, and its peak of resident memory (bytes); it is stopped where that is enough."""
    start, peak = perf_counter(), 0.0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            sleep(EVERY)
            peak = max(peak, 1024e3 * peak_of(process.pid))
            if peak > enough:
                process.kill()
    if process.returncode and peak <= enough:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
    return perf_counter() - start, peak


def lists(path: Path) -> list[list[tuple[object, float]]]:
    """Every line's list."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [[(tuple(item["identifier"]), item["score"]) for item in line["items"]] for line in lines]


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where all of it is kept. Default: nowhere.")
@click.option("--vocabulary", default=152_000, show_default=True)
@click.option("--prompt", default=2500, show_default=True)
@click.option("--top-k", default=1000, show_default=True)
@click.option("--levels", default=4, show_default=True)
@click.option("--batch", default=8, show_default=True)
@click.option("--items", default=50_000, show_default=True)
@click.option("--users", default=16, show_default=True)
@click.option("--memory", default="2GB", show_default=True, type=MemorySize())
@click.option("--enough", default="6GB", show_default=True, type=MemorySize(), help="Where runs without a limit end.")
@click.option("--speculation", default="fixed", show_default=True, type=click.Choice(["fixed", "auto", "off"]))
def main(
    folder: Path | None, vocabulary: int, prompt: int, top_k: int, levels: int, batch: int, items: int, users: int,
    memory: int, enough: int, speculation: str,
) -> None:  # fmt: skip
    """Serve the same users without a limit and within one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        bundle = make_bundle(folder, vocabulary, levels, prompt, top_k, items)
        histories = folder / "users.jsonl"
        write_users(histories, users, prompt, levels, items)
        drafting = ["--drafter", "none"] if speculation == "off" else ["--speculation", speculation]
        command = [sys.executable, "-m", "specbeam.cli", "infer", str(bundle), str(histories), "--scoring", "full"]
        command += ["--top-k", str(top_k), "--overwrite", *drafting]
        rows, found = [], []
        for size, limit in ((batch, None), (1, None), (batch, memory)):
            output, told = folder / f"{size}-{limit}.jsonl", [] if limit is None else ["--memory", str(limit)]
            words = [*command, "--batch-size", str(size), "--output", str(output), *told]
            seconds, peak = measured(words, enough if limit is None else inf)
            stopped = peak > enough and limit is None
            if not stopped:
                found.append(lists(output))
            told = ["none" if limit is None else f"{limit / 1e9:g} GB", f"{'over ' * stopped}{peak / 1e9:.2f}"]
            rows.append([size, *told, "stopped" if stopped else f"{seconds:.1f}"])
    print_table(["requests in a batch", "--memory", "peak, resident (GB)", "seconds"], rows)
    faults = [fault for a, b in zip(found[0], found[-1], strict=True) if (fault := ranking_fault(b, a))]
    print(f"\n{len(found[0]) - len(faults)} of {len(found[0])} lists are the same{'; ' + faults[0] if faults else ''}.")
    sys.exit(bool(faults) or peak > memory)


if __name__ == "__main__":
    main()
