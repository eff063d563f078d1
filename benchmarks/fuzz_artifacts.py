"""Loaders of artifacts on changed ones: an answer or one of our errors, in time and in bounded memory."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from artifact_targets import Artifacts, Target, artifact_targets, other_targets, pool_targets  # noqa: E402
from fuzzing import Report, fuzz  # noqa: E402


def all_targets(folder: Path) -> list[Target]:
    """Every loader that needs no model."""
    from tiny_models import make_text_tokenizer

    made = Artifacts(folder / "model")
    tokenizer = make_text_tokenizer().backend_tokenizer.to_str().encode()
    return [
        *artifact_targets(folder / "bundle"),
        *pool_targets(folder / "pools", made.catalog, made.trie),
        *other_targets(folder / "others", made.trie, tokenizer),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="of every loader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="loaders whose names begin so")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[tuple[str, Report]] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for target in all_targets(Path(folder)):
            if not target.name.startswith(options.only):
                continue
            with tqdm(total=options.inputs, desc=target.name, mininterval=1) as bar:
                report = fuzz(
                    target.use, target.inputs(options.inputs, options.seed), progress=lambda done, bar=bar: bar.update()
                )
            rows.append((target.name, report))
    print(f"{'loader':<36}{'inputs':>8}{'accepted':>10}{'refused':>9}{'foreign':>9}{'hangs':>7}{'MB':>6}{'s':>6}")
    for name, report in rows:
        hangs = report.kinds().get("hang", 0)
        print(
            f"{name:<36}{report.inputs:>8}{report.accepted:>10}{report.refused:>9}{len(report.findings) - hangs:>9}"
            f"{hangs:>7}{report.peak / 2**20:>6.0f}{report.seconds:>6.0f}"
        )
        for kind, count in report.kinds().items():
            print(f"    {count} x {kind}")
    sys.exit(any(report.findings for _, report in rows))


if __name__ == "__main__":
    main()
