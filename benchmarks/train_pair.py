"""Train a target and a draft on one of the public datasets, for the benchmarks that need a pair.

The pair is what `benchmarks/modes.py --data games` measures where no trained pair is at hand. Both are
trained from scratch by `specrec.align.train` on the training histories and keep the weights of the best
validation loss; the draft is not aligned to the target.
"""

from argparse import ArgumentParser
from pathlib import Path

from reference import rows_of, shared_data
from specrec.align.decoder import ModelSize
from specrec.align.train import TrainingBudget, train_decoder
from specrec.catalog.items import Catalog

TARGET = ModelSize(layers=4, hidden=192, heads=4, intermediate=512)
DRAFT = ModelSize(layers=1, hidden=96, heads=2, intermediate=256)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for target/ and draft/")
    parser.add_argument("--data", default="games", choices=["beauty", "games"])
    parser.add_argument("--seconds", type=float, nargs=2, default=[2400, 600], help="of target and draft")
    options = parser.parse_args()
    shared = shared_data()
    if shared is None:
        parser.exit(2, "The data/ folder is absent: name the folder that holds it in SPECREC_DATA.\n")
    folder = shared / "data" / options.data
    catalog = Catalog.load(folder / "index.json", folder / "items.json")
    train, valid = (
        [[catalog.position[item] for item in items] for items in rows_of(folder, part).values() if len(items) > 1]
        for part in ("train", "valid")
    )
    valid = [items[-20:] for items in valid]
    for role, size, seconds, rate in zip(
        ("target", "draft"), (TARGET, DRAFT), options.seconds, (2e-3, 4e-3), strict=True
    ):
        budget = TrainingBudget(steps=10**6, seconds=seconds, learning_rate=rate, checks=8, batch=16, patience=2)
        report = train_decoder(
            train, catalog, size, options.output / role, budget=budget, validation=valid[:600], progress=role
        )
        print(role, report, flush=True)


if __name__ == "__main__":
    main()
