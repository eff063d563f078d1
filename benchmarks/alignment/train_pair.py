"""Train a target and a draft on one of the public datasets, for the benchmarks that need a pair.

The pair is what `benchmarks/quality/modes.py --data games` measures where no trained pair is at hand. Both are
trained from scratch by `specbeam.align.training.train` on the training histories and keep the weights of the best
validation loss; the draft is not aligned to the target.
"""

from argparse import ArgumentParser
from pathlib import Path

from benchmarks.shared import shared_data
from specbeam.align.training.configs import ModelSize
from specbeam.align.training.sources import FreshModel
from specbeam.align.training.train import train
from specbeam.catalog.histories.dataset import Dataset

TARGET = ModelSize(layers=4, hidden=192, heads=4, intermediate=512)
DRAFT = "1x128"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for target/ and draft/")
    parser.add_argument("--data", default="games", choices=["beauty", "games"])
    parser.add_argument("--steps", type=int, nargs=2, default=[24_000, 6_000], help="of target and draft, at most")
    options = parser.parse_args()
    shared = shared_data()
    if shared is None:
        parser.exit(2, "The data/ folder is absent: name the folder that holds it in SPECBEAM_DATA.\n")
    dataset = Dataset.open(shared / "data" / options.data)
    sources = (FreshModel(TARGET), FreshModel(DRAFT, options.output / "target"))
    for role, source, steps in zip(("target", "draft"), sources, options.steps, strict=True):
        report = train(dataset, source, options.output / role, budget={"steps": steps}, progress=role)
        print(f"{role}: {report.summary()}", flush=True)


if __name__ == "__main__":
    main()
