"""A large pair on one GPU, start to end, with the walltime of each part: train, align, export, measure.

A target of 24 layers of 1,024 (about 300 million parameters) and a draft of 2 layers of 512 (under 5 % of it),
trained and aligned on games in bf16, exported, and measured by the torch engine at batch 1. Smaller sizes
and steps try the same on a CPU:

    python -m benchmarks.alignment.large_pair DIR
    python -m benchmarks.alignment.large_pair DIR --target 2x64 --draft 1x32 --steps 20 10 10 --places 500 \\
      --users 20 --device cpu
"""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from benchmarks.shared import shared_data
from specbeam.align.align import AlignOptions, align
from specbeam.align.objectives import find_objective
from specbeam.align.training.sources import FreshModel, Pretrained
from specbeam.align.training.train import train
from specbeam.catalog.histories.dataset import Dataset
from specbeam.engines.bundle.items import Bundle
from specbeam.evaluate import Settings, evaluate
from specbeam.evaluate.table import described
from specbeam.export import export_bundle
from specbeam.runtime import Batching, EngineChoice

T = TypeVar("T")


def timed(name: str, part: Callable[[], T], seconds: dict[str, float]) -> T:
    """Run a part and note its walltime."""
    start = perf_counter()
    result = part()
    seconds[name] = perf_counter() - start
    print(f"== {name}: {seconds[name]:.0f} s", flush=True)
    return result


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for all it makes; what is there is not made again")
    parser.add_argument("--data", default="games", choices=["beauty", "games"])
    parser.add_argument("--target", default="24x1024")
    parser.add_argument("--draft", default="2x512")
    parser.add_argument("--steps", type=int, nargs=3, default=[3000, 3000, 2000], help="of target, draft, alignment")
    parser.add_argument("--batch", type=int, nargs=3, default=[64, 128, 64], help="likewise")
    parser.add_argument("--places", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    shared = shared_data()
    if shared is None:
        parser.exit(2, "The data/ folder is absent: name the folder that holds it in SPECBEAM_DATA.\n")
    dataset = Dataset.open(shared / "data" / options.data)
    target, draft, aligned, bundle = (options.output / name for name in ("target", "draft", "aligned", "bundle"))
    sources = (FreshModel(options.target), FreshModel(options.draft, target))
    seconds: dict[str, float] = {}
    for path, source, steps, batch in zip((target, draft), sources, options.steps, options.batch, strict=False):
        if not path.is_dir():
            budget = {"steps": steps, "batch": batch}
            report = timed(path.name, lambda: train(dataset, source, path, budget=budget, progress=path.name), seconds)  # noqa: B023
            print(report.summary(), flush=True)
    if not aligned.is_dir():
        budget = {"steps": options.steps[2], "batch": options.batch[2]}
        found = timed(
            "alignment, with the target's trees",
            lambda: align(
                dataset, target, Pretrained(draft), find_objective("path-kd"), aligned, budget=budget, bar="aligned",
                options=AlignOptions(places=options.places),
            ),
            seconds,
        )  # fmt: skip
        print(found.summary(), flush=True)
    if not bundle.is_dir():
        timed("export", lambda: export_bundle(target, aligned, dataset.index, dataset.items, bundle), seconds)
    settings = Settings(
        verify=("strict", "relaxed"), rule="both", users=options.users,
        engine=EngineChoice(f"torch-{options.device}-fp32"), batching=Batching(1),
    )  # fmt: skip
    result = timed("evaluation", lambda: evaluate(Bundle.open(bundle), dataset, settings), seconds)
    print(described(result))
    print("\n".join(f"{name}: {value:.0f} s" for name, value in seconds.items()))


if __name__ == "__main__":
    main()
