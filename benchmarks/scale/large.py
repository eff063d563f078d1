"""What export and build-engine take of a large target, step by step: seconds, processor time, memory.

Run: python -m benchmarks.scale.large --work DIR [--layers 20] [--width 1536] [--draft] [--parts export,build]
Makes a target of random weights (600 M parameters unless told otherwise; 2.4 GB) and a small draft in the folder,
then does what the two commands do, each in a process of its own, and prints a table of their steps. A step begins
where its command tells of one. Memory is that of the process: anonymous pages (sampled), and all resident ones, which
count mapped files as well (the kernel's own peak); both in gigabytes and as a multiple of the target's weights.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared import dump, print_table

SHORT = 0.05  # seconds: steps below are not told
EVERY = 0.01  # seconds between two looks at a process
PARTS = ("export", "build")
VOCABULARY = 32_768


@dataclass
class Step:
    """What a part did from one message to the next."""

    name: str
    began: float
    cpu: float  # seconds of the process until it began
    seconds: float = 0.0
    anonymous: int = 0  # bytes at most
    resident: int = 0


class Told:
    """Of the process that works: says where each step begins, on a pipe; and the kernel's peak of the one before."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, name: str) -> None:
        if name == self._last:
            return
        self._last = name
        line = {"step": name, "at": time.monotonic(), "cpu": time.process_time(), "peak": memory(os.getpid())["VmHWM"]}
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
        print(json.dumps(line), flush=True)


def memory(process: int) -> dict[str, int]:
    """Bytes by the names of /proc/PID/status; nothing where it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return {line[0][:-1]: int(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}
    return {}


def measured(command: list[str]) -> list[Step]:
    """The steps of a part, run in a process."""
    steps = [Step("starting", time.monotonic(), 0.0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        looking = threading.Thread(target=_look, args=(process, steps), daemon=True)
        looking.start()
        for line in process.stdout or ():
            said = json.loads(line)
            last = steps[-1]
            last.seconds, last.resident = said["at"] - last.began, max(last.resident, said["peak"])
            last.cpu = said["cpu"] - last.cpu
            steps.append(Step(said["step"], said["at"], said["cpu"]))
            print(f"  {said['step']}", file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return steps[:-1]


def _look(process: "subprocess.Popen[str]", steps: list[Step]) -> None:
    while process.poll() is None:
        now = memory(process.pid).get("RssAnon", 0)
        steps[-1].anonymous = max(steps[-1].anonymous, now)
        time.sleep(EVERY)


def make(work: Path, options: argparse.Namespace) -> None:
    """The target, the draft and a catalog, unless they are there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.speed.made_pairs import identifiers
    from tiny_models import WORDS, make_tokenizer

    if (work / "index.json").is_file():
        return
    work.mkdir(parents=True, exist_ok=True)
    named = identifiers(4, np.random.default_rng(0))
    tokenizer = make_tokenizer(sorted({token for identifier in named for token in identifier}))
    shape = {
        "vocab_size": VOCABULARY, "num_attention_heads": options.width // 128, "head_dim": 128,
        "num_key_value_heads": options.width // 384, "max_position_embeddings": 2048, "tie_word_embeddings": False,
        "bos_token_id": WORDS.index("<s>"), "eos_token_id": WORDS.index("</s>"), "hidden_size": options.width,
        "intermediate_size": options.width * 8 // 3, "num_hidden_layers": options.layers,
    }  # fmt: skip
    small = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 1, "num_attention_heads": 2}
    for name, settings in (("target", shape), ("draft", {**shape, **small, "num_key_value_heads": 2})):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**settings))
        shard = {"max_shard_size": options.shard} if options.shard else {}
        model.save_pretrained(work / name, **shard)
        tokenizer.save_pretrained(work / name)
        del model
    (work / "index.json").write_text(json.dumps(dict(zip(map(str, range(len(named))), named, strict=True))))


def export(work: Path, options: argparse.Namespace, told: Callable[[str], None]) -> None:
    """As `specbeam export` does."""
    from specbeam.export import export_bundle

    told("imports done")
    export_bundle(
        work / "target", work / "draft", work / "index.json", None, work / "bundle", overwrite=True,
        precision=options.precision, checkpoints=not options.no_checkpoints, progress=told,
    )  # fmt: skip


def build(work: Path, options: argparse.Namespace, told: Callable[[str], None]) -> None:
    """As `specbeam build-engine` does."""
    from specbeam.engines.build import build_engine

    told("imports done")
    build_engine(work / "bundle", threads=options.threads, overwrite=True, progress=lambda what, *_: told(what))


def rows(steps: list[Step], size: int) -> list[list[object]]:
    """A line for every step of a hundredth of a second and more, and one for all; memory also over the weights'."""

    def line(name: str, these: list[Step]) -> list[object]:
        peaks = (max(step.anonymous for step in these), max(step.resident for step in these))
        told = (f"{peak / 1e9:.2f} ({peak / size:.2f})" for peak in peaks)
        return [name, sum(step.seconds for step in these), sum(step.cpu for step in these), *told]

    return [*(line(step.name, [step]) for step in steps if step.seconds >= SHORT), line("all", steps)]


def weights(work: Path) -> int:
    """Bytes of the target's weights."""
    return sum(file.stat().st_size for file in (work / "target").glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the models and the bundle")
    parser.add_argument("--layers", type=int, default=20, help="of the target (default: %(default)s)")
    parser.add_argument(
        "--width", type=int, default=1536, help="of its hidden states, a multiple of 384 (default: %(default)s)"
    )
    parser.add_argument("--shard", help="write the target in shards of at most so much, such as 1GB")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16", "bf16"], help="of the export")
    parser.add_argument("--no-checkpoints", action="store_true", help="export without copies for the torch engine")
    parser.add_argument("--threads", type=int, help="of the engine (default: all processors)")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--one", choices=["make", *PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--output", help="write the result as JSON")
    options = parser.parse_args()
    if options.one == "make":
        return make(options.work, options)
    if options.one:
        told = Told()
        {"export": export, "build": build}[options.one](options.work, options, told)
        return told("end")
    command = [sys.executable, "-m", "benchmarks.scale.large", *sys.argv[1:], "--one"]
    subprocess.run([*command, "make"], check=True)
    size, found = weights(options.work), {}
    for part in options.parts.split(","):
        print(part, file=sys.stderr)
        steps = found[part] = measured([*command, part])
        print(f"\n{part}: {size / 1e9:.2f} GB of weights\n")
        print_table(["step", "s", "CPU s", "anonymous, GB", "resident, GB"], rows(steps, size))
    dump(options.output, {part: [vars(step) for step in steps] for part, steps in found.items()})


if __name__ == "__main__":
    main()
