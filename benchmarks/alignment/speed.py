"""WS@K of differently taught drafts over one target: all of them, the plain loop and `generate` take turns."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.alignment.results import Setup, Speed, write
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.histories.dataset import Dataset, Example
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.registry import load_engine
from specbeam.evaluate.bench import Bench, Generate
from specbeam.evaluate.data import HeldOut
from specbeam.evaluate.figures import Pace, paces
from specbeam.evaluate.settings import GENERATE, PLAIN, Settings
from specbeam.evaluate.speed import Contestant, rounds_of, served_by, take_turns
from specbeam.export import export_bundle
from specbeam.export.quiet import quiet
from specbeam.runtime import Drafting, EngineChoice


def measure_speed(options: Namespace, setup: Setup, drafts: dict[str, Path]) -> None:
    """Export and build a bundle of every draft (objective to checkpoint), race them, and write speed.json."""
    settings = Settings(
        top_k=setup.top_k,
        verify=("strict", "relaxed"),
        users=setup.users,
        temperature=1.0,
        engine=EngineChoice(threads=options.threads),
        drafting=Drafting(speculation="fixed"),
    )
    dataset = Dataset.open(options.data)
    bundles = {
        name: built(options.work / "bundles" / name, options.pair / "target", draft, dataset, options.threads)
        for name, draft in tqdm(drafts.items(), desc="bundles", disable=None)
    }
    first = next(iter(bundles.values()))
    bench = Bench.open(first, settings)
    benches = {name: with_draft(bench, bundle) for name, bundle in bundles.items()}
    generate = bench.generate()
    if isinstance(generate, str):
        raise SpecBeamError(f"generate cannot be timed: {generate}.")
    users = HeldOut.of(dataset, settings, first.path, bench.loaded.catalog, first.manifest.identifier_length).examples
    rounds = rounds_of(users, 1, options.rounds)
    found = [pace for k in setup.top_k for pace in race(benches, generate, rounds, k)]
    write(options.work / "speed.json", Speed(options.seeds[0], bench.engine, bench.threads, tuple(found)))


def built(path: Path, target: Path, draft: Path, dataset: Dataset, threads: int | None) -> Bundle:
    """The bundle at `path` with its engine; what of it is there already is not made again."""
    with quiet():
        if not path.exists():
            export_bundle(target, draft, dataset.index, dataset.items, path)
        if not Bundle.open(path).engine_names():
            build_engine(path, threads=threads)
    return Bundle.open(path)


def with_draft(bench: Bench, bundle: Bundle) -> Bench:
    """The same target in memory with the draft of another bundle, so that all drafts meet the same caches."""
    draft = load_engine(bundle, "draft", bench.engine, threads=bench.threads)
    return replace(bench, bundle=bundle, loaded=replace(bench.loaded, draft=draft))


def race(benches: Mapping[str, Bench], generate: Generate, rounds: Sequence[Sequence[Example]], k: int) -> list[Pace]:
    """Everybody's pace at batch 1; strict contestants have their objective's name, relaxed ones a suffix."""
    contestants: dict[str, Contestant] = {}
    for name, bench in benches.items():
        loops = {search.name: bench.recommender(search) for search in bench.searches}
        encode = loops[PLAIN].encode
        contestants[name] = served_by(loops["strict"], k)
        contestants[f"{name}, relaxed"] = served_by(loops["relaxed"], k)
        contestants.setdefault(PLAIN, served_by(loops[PLAIN], k))
    contestants[GENERATE] = lambda users: generate(encode(users[0].history).prompt, k)
    with tqdm(total=len(rounds), desc=f"rounds, K={k}", disable=None, leave=False) as bar:
        seconds, _ = take_turns(contestants, rounds, progress=lambda done: bar.update(done - bar.n))
    return paces(seconds, (PLAIN, GENERATE), k, 1)
