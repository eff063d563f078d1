"""WS@K of differently taught drafts over one target: all of them, the plain loop and `generate` take turns."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from alignment_results import Setup, Speed, write
from specrec.catalog.dataset import Dataset, Example
from specrec.catalog.errors import SpecRecError
from specrec.engines.build import build_engine
from specrec.engines.bundle import Bundle
from specrec.engines.registry import load_engine
from specrec.evaluate.bench import Bench
from specrec.evaluate.data import HeldOut
from specrec.evaluate.figures import Pace, paces
from specrec.evaluate.settings import GENERATE, PLAIN, Settings
from specrec.evaluate.speed import Contestant, rounds_of, served_by, take_turns
from specrec.export import export_bundle
from specrec.export.quiet import quiet


def measure_speed(options: Namespace, setup: Setup, drafts: dict[str, Path]) -> None:
    """Export and build a bundle of every draft (objective to checkpoint), race them, and write speed.json."""
    settings = Settings(
        top_k=setup.top_k, verify=("strict", "relaxed"), users=setup.users, threads=options.threads, temperature=1.0
    )
    dataset = Dataset.open(options.data)
    bundles = {
        name: built(options.work / "bundles" / name, options.pair / "target", draft, dataset)
        for name, draft in tqdm(drafts.items(), desc="bundles", disable=None)
    }
    first = next(iter(bundles.values()))
    bench = Bench.open(first, settings)
    users = HeldOut.of(dataset, settings, first.path, bench.catalog, first.manifest.identifier_length).examples
    found = [pace for k in setup.top_k for pace in race(bench, bundles, users, k, options.rounds)]
    write(options.work / "speed.json", Speed(options.seeds[0], bench.engine, bench.threads, tuple(found)))


def built(path: Path, target: Path, draft: Path, dataset: Dataset) -> Bundle:
    """The bundle at `path` with its engine; what of it is there already is not made again."""
    with quiet():
        if not path.exists():
            export_bundle(target, draft, dataset.index, dataset.items, path)
        if not Bundle.open(path).engine_names():
            build_engine(path)
    return Bundle.open(path)


def race(bench: Bench, bundles: dict[str, Bundle], examples: Sequence[Example], k: int, rounds: int) -> list[Pace]:
    """Everybody's pace at batch 1; strict contestants have their objective's name, relaxed ones a suffix."""
    contestants: dict[str, Contestant] = {}
    for name, bundle in bundles.items():
        own = replace(bench, bundle=bundle, draft=load_engine(bundle, "draft", bench.engine, threads=bench.threads))
        for search in bench.searches:
            called = {"strict": name, PLAIN: PLAIN}.get(search.name, f"{name}, {search.name}")
            contestants.setdefault(called, served_by(own.recommender(search), k))
    generate, encode = bench.generate(), bench.recommender(bench.searches[0]).encode
    if isinstance(generate, str):
        raise SpecRecError(f"generate cannot be timed: {generate}.")
    contestants[GENERATE] = lambda users: generate(encode(users[0].history).prompt, k)
    with tqdm(total=rounds, desc=f"rounds, K={k}", disable=None, leave=False) as bar:
        seconds, _ = take_turns(
            contestants, rounds_of(examples, 1, rounds), progress=lambda done: bar.update(done - bar.n)
        )
    return paces(seconds, (PLAIN, GENERATE), k, 1, seed=0)
