"""A race from its settings to its figures."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ...catalog.checks import function, instance
from ...catalog.errors import HistoryError, OptionError
from ...engines.bundle.items import Bundle
from ...engines.bundle.names import EngineName
from ...engines.machine.processors import busy, load
from ...runtime import Batching, Drafting, EngineChoice, Recommender, Verification
from ...runtime.metrics import FEWEST
from ...runtime.planning.from_options import drafter_for, planning_for
from ...runtime.search.prefix import SharedPrefix
from ...runtime.search.scoring import Scoring
from ...runtime.types import Request
from ..bench import Bench
from ..settings import Settings
from ..speed import rounds_of, take_turns
from .beams import ReorderedBeams
from .figures import SCHEMA, Lane, Race, Sources, lanes_of
from .floor import FloorRacer
from .memory import PeakMemory
from .racers import BeamRacer, LoopRacer, Racer, Spent
from .settings import CONTESTANTS, FLOOR, Name, RaceSettings

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all
GENERATORS: dict[Name, Any] = {"generate": "function", "generate-arrays": "arrays"}


def race(
    bundle: str | Path | Bundle,
    histories: Sequence[tuple[str | None, Sequence[str]]],
    settings: RaceSettings | None = None,
    *,
    sources: Sources | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Race:
    """Let contestants serve the same histories (a user and item ids each) in turns, at every K and batch size.

    sources: what the histories were read from, to be read again by a check. Raises `OptionError` for what the bundle
    cannot do, and `HistoryError` where no history can be used.
    """
    settings = (
        RaceSettings() if settings is None else instance(settings, "settings", RaceSettings, "such as RaceSettings()")
    )
    progress = function(progress, "progress")
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    bench = Bench.open(bundle, _as_of_evaluate(settings))
    racers, notes = entrants(bench, settings)
    requests, left_out = _requests(_recommender(bench, Drafting("none")), histories, settings.users)
    began = load()
    lanes, memory = run_cells(racers, requests, settings, progress)
    if left_out:
        notes.append(f"{left_out} histories are left out: no item of theirs is in the bundle's catalog")
    setup, ended = bench.setup(began), load()
    told = busy(began, setup.processors) or busy(ended, setup.processors, "ended")
    notes += [text for text in (told, _few(lanes)) if text]
    return Race(
        schema=SCHEMA, setup=setup, settings=settings, sources=sources or Sources(),
        requests=len(requests), lanes=tuple(lanes), peak_memory=memory, notes=tuple(notes),
    )  # fmt: skip


def _as_of_evaluate(settings: RaceSettings) -> Settings:
    """What loads the engines."""
    return Settings(
        top_k=settings.top_k, engine=EngineChoice(settings.engine, threads=settings.threads), timed_users=0,
        drafting=Drafting(pool=settings.pool), scoring=settings.scoring, batching=Batching(max(settings.batches)),
    )  # fmt: skip


def _requests(
    recommender: Recommender, histories: Sequence[tuple[str | None, Sequence[str]]], most: int
) -> tuple[list[Request], int]:
    """The first `most` that can be used, and how many before them cannot."""
    requests, left_out = list[Request](), 0
    for user, items in histories:
        if len(requests) == most:
            break
        try:
            requests.append(recommender.encode(items, user=user))
        except HistoryError:
            left_out += 1
    if not requests:
        raise HistoryError(
            f"none of {len(histories)} histories has an item of the bundle's catalog. Give histories of its items."
        )
    return requests, left_out


def entrants(bench: Bench, settings: RaceSettings) -> tuple[dict[str, Racer], list[str]]:
    """The contestants, and what there is to say of them.

    Raises `OptionError` for those that were asked for by name and cannot take part.
    """
    racers, notes, checkpoint = dict[str, Racer](), list[str](), cache(bench.checkpoint)
    for name in settings.contestants or CONTESTANTS:
        found = _generating(bench, name, checkpoint()) if name in GENERATORS else _ours(bench, settings, name)
        if not isinstance(found, str):
            racers[name] = found
        elif settings.contestants:
            raise OptionError(f"{name} cannot take part: {found}. Leave it out.")
        else:
            notes.append(f"{name} takes no part: {found}")
    if settings.oracle:
        racers[FLOOR] = FloorRacer(bench.loaded, _verification(bench))
    if set(GENERATORS) & set(racers) and not _as_exported(bench):
        notes.append(f"generate runs the checkpoint, not {bench.engine}: its lists are not compared")
    return racers, notes


def _generating(bench: Bench, name: Name, checkpoint: Any) -> Racer | str:
    """`generate`, or why it takes no part; checkpoint: opened, or why it cannot be."""
    if isinstance(checkpoint, str):
        return checkpoint
    from .generating import GenerateRacer

    generate = checkpoint.masked_by(GENERATORS[name])
    return GenerateRacer(generate, bench.loaded.trie, bench.threads, exact=_as_exported(bench))


def _as_exported(bench: Bench) -> bool:
    """Whether the engine has the checkpoint's precision, and must find what `generate` finds."""
    return EngineName.of(bench.engine).precision == bench.bundle.manifest.precision


def _ours(bench: Bench, settings: RaceSettings, name: Name) -> Racer | str:
    """A contestant on the bundle's engines, or why it takes no part."""
    loaded, drafting = bench.loaded, Drafting("none")
    match name:
        case "beams":
            prefix = SharedPrefix(loaded.target, np.array(loaded.prompts.spec.prefix_ids, np.int64))
            scoring = Scoring(_verification(bench).scoring or "full")
            return BeamRacer(ReorderedBeams(prefix, loaded.trie, scoring), loaded.trie)
        case "auto":
            if not bench.bundle.is_measured(bench.engine):
                return f"{bench.engine} has no measured latency to plan by"
            drafting = replace(bench.drafting, speculation="auto")
        case "model" | "retrieval" | "both":
            if name != "retrieval" and loaded.draft is None:
                return "the bundle has no draft model"
            if name != "model" and loaded.pool is None:
                return "there is no pool"
            drafting = Drafting(name, None if name == "model" else bench.drafting.pool, shape=settings.shape)
    return LoopRacer(_recommender(bench, drafting))


def _verification(bench: Bench) -> Verification:
    return Verification(scoring=bench.settings.scoring or bench.bundle.manifest.scoring)


def _recommender(bench: Bench, drafting: Drafting) -> Recommender:
    """Our loop over the loaded engines, drafting so."""
    verification, pool = _verification(bench), drafting.opened_pool()
    drafter = drafter_for(bench.bundle, drafting.drafter, has_pool=pool is not None)
    drafting, loaded = replace(drafting, drafter=drafter), bench.loaded
    planning = planning_for(bench.bundle, bench.engine, loaded.trie, verification, drafting, threads=bench.threads)
    loaded = replace(
        loaded, draft=loaded.draft if drafter in ("model", "both") else None,
        pool=loaded.pool if drafter in ("retrieval", "both") else None,
    )  # fmt: skip
    return Recommender(loaded, planning=planning, verification=verification)


def run_cells(
    racers: Mapping[str, Racer], requests: Sequence[Request], settings: RaceSettings, progress: Progress
) -> tuple[list[Lane], float | None]:
    """Every contestant's lane in every cell, and the process's peak memory in MB."""
    cells = [(k, batch) for k in settings.top_k for batch in settings.batches]
    lanes, memory, total = list[Lane](), PeakMemory(), len(cells) * settings.rounds
    for number, (k, batch) in enumerate(cells):
        memory.added = dict.fromkeys(racers)
        told = partial(_told, progress, number * settings.rounds, total)
        lanes += _cell(racers, requests, settings, (k, batch), memory, told)
    return lanes, memory.most


def _told(progress: Progress, before: int, total: int, done: int) -> None:
    progress("rounds", before + done, total)


def _cell(
    racers: Mapping[str, Racer], requests: Sequence[Request], settings: RaceSettings, cell: tuple[int, int],
    memory: PeakMemory, told: Callable[[int], None],
) -> list[Lane]:  # fmt: skip
    k, batch = cell
    rounds = rounds_of(requests, batch, settings.rounds)
    here = {name: racer.ready(rounds, k) for name, racer in racers.items()}
    spent: dict[str, list[Spent]] = defaultdict(list)

    @contextmanager
    def around(name: str, number: int) -> Iterator[None]:
        with memory.during(name):
            yield
        if number >= 0:
            spent[name].append(here[name].spent)

    seconds, answers = take_turns(
        {name: partial(_serve, racer, k) for name, racer in here.items()}, rounds, seed=settings.seed,
        share=settings.seconds / len(here), around=around, progress=told,
    )  # fmt: skip
    lists = {
        name: [None if answer is None else here[name].lists(answer, k) for answer in each]
        for name, each in answers.items()
    }
    return lanes_of(k, batch, seconds, spent, memory.added, lists)


def _serve(racer: Racer, k: int, group: Sequence[Request]) -> object:
    return racer.serve(group, k)


def _few(lanes: Sequence[Lane]) -> str | None:
    """What to say where turns are too few for intervals."""
    few = sorted({lane.name for lane in lanes if lane.turns < FEWEST})
    said = f"too few turns for 95 % intervals of {', '.join(few)} in some cells: the brackets hold all turns"
    return said if few else None
