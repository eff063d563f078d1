"""An evaluation from its settings to its figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ..catalog.checks import function, instance
from ..catalog.histories.dataset import Dataset, Example
from ..catalog.prompts.options import PromptOptions, contradictions, contrast
from ..engines.bundle.items import Bundle
from ..engines.bundle.names import EngineName
from ..engines.machine.processors import busy, load
from ..runtime import Recommendation, Recommender
from ..runtime.answers import answered
from ..runtime.metrics import FEWEST
from ..runtime.planning.planner import Planner
from ..runtime.types import Request, RequestStats
from .bench import Bench, Generate, Setup
from .data import DataFacts, HeldOut
from .figures import QUALITY, AtK, Outcome, Pace, at_k, paces, per_request, same_list, told_once
from .settings import GENERATE, PLAIN, Search, Settings, WrittenSettings
from .speed import Contestant, rounds_of, served_by, take_turns

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all


class ModeFigures(msgspec.Struct, frozen=True):
    """One mode's figures for every K."""

    search: Search
    at: tuple[AtK, ...]


class Evaluation(msgspec.Struct, frozen=True):
    """All that an evaluation found."""

    setup: Setup
    data: DataFacts
    settings: WrittenSettings
    modes: tuple[ModeFigures, ...]
    paces: tuple[Pace, ...]
    notes: tuple[str, ...]  # what was skipped, or is not as it should be


class UserLine(msgspec.Struct, frozen=True):
    """One request under one mode."""

    user: str
    mode: str
    k: int
    recall: float
    ndcg: float
    target_calls: int
    draft_calls: int
    nodes: int
    items: tuple[str, ...]


def evaluate(
    bundle: str | Path | Bundle,
    dataset: Dataset,
    settings: Settings | None = None,
    *,
    each: Callable[[UserLine], object] = lambda line: None,
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Measure every mode and K of `settings` on held-out users.

    each: is told every request's result under every mode. Raises `SpecBeamError` where dataset and bundle do
    not belong together or there is nobody to evaluate, `OptionError` for what the bundle cannot do.
    """
    settings = Settings() if settings is None else instance(settings, "settings", Settings, "such as Settings()")
    instance(dataset, "dataset", Dataset, "such as Dataset.open(folder)")
    each, progress = function(each, "each"), function(progress, "progress")
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    held = HeldOut.of(dataset, settings, bundle.path, bundle.catalog(), bundle.manifest.identifier_length)
    bench = Bench.open(bundle, settings)
    recommenders = {search.name: bench.recommender(search) for search in bench.searches}
    figures = _figures(bench, recommenders, held, each, progress)
    untuned = [name for name, one in recommenders.items() if isinstance(one.planning, Planner) and one.planning.blind]
    setup = bench.setup(load() if settings.timed_users else None)
    timed, notes = _timed(bench, recommenders, held.examples, progress) if settings.timed_users else ([], [])
    told = busy(setup.load, setup.processors)
    remarks = [*_remarks(held.facts, figures), *_unlike_training(bundle)]
    notes = [*remarks, *filter(None, [told, _blind(untuned, bundle)]), *notes]
    return Evaluation(setup, held.facts, settings.written(), figures, tuple(timed), tuple(notes))


def _figures(
    bench: Bench,
    recommenders: Mapping[str, Recommender],
    held: HeldOut,
    each: Callable[[UserLine], object],
    progress: Progress,
) -> tuple[ModeFigures, ...]:
    """Everything but the walltime."""
    encode = next(iter(recommenders.values())).encode
    requests = [encode(example.history, user=example.user) for example in held.examples]
    strict = {search.name for search in bench.searches if search.exact}
    found: dict[str, list[AtK]] = {name: [] for name in recommenders}
    total, step = len(bench.settings.top_k) * len(recommenders) * len(requests), 0
    for k in bench.settings.top_k:
        outcomes: dict[str, Outcome] = {}
        for name, recommender in recommenders.items():
            told = partial(_told, progress, "lists", step * len(requests), total)
            outcomes[name] = _outcome(recommender, requests, k, told)
            step += 1
        plain = PLAIN if PLAIN in outcomes else None
        for name, at in at_k(outcomes, held.truth, k, plain=plain, strict=strict, seed=bench.settings.seed).items():
            found[name].append(at)
            _tell(name, outcomes[name], held, k, each)
    return tuple(ModeFigures(search, tuple(found[search.name])) for search in bench.searches)


def _outcome(recommender: Recommender, requests: Sequence[Request], k: int, told: Callable[[int], None]) -> Outcome:
    fresh = recommender.variant(recommender.planning, recommender.batch_size)  # with counters of its own
    return Outcome.of(answered(fresh.run(requests, k, progress=told)), fresh.stats)


def _told(progress: Progress, what: str, before: int, total: int, done: int) -> None:
    progress(what, before + done, total)


def _tell(name: str, outcome: Outcome, held: HeldOut, k: int, each: Callable[[UserLine], object]) -> None:
    quality = per_request(outcome, held.truth, k)[:, : len(QUALITY)].tolist()
    rows = zip(held.truth.users, quality, outcome.counts.tolist(), outcome.ranked, strict=True)
    for user, (recall, ndcg), (target_calls, draft_calls, nodes), items in rows:
        each(UserLine(user, name, k, recall, ndcg, target_calls, draft_calls, nodes, items))


def _blind(untuned: Sequence[str], bundle: Bundle) -> str | None:
    """What to say of searches that plan by latency alone."""
    if not untuned:
        return None
    return (
        f"auto knew of no tuning for {', '.join(untuned)} and went by the engine's latency: specbeam tune "
        f"{bundle.path} HISTORIES measures what drafting is worth"
    )


def _timed(
    bench: Bench, recommenders: Mapping[str, Recommender], examples: Sequence[Example], progress: Progress
) -> tuple[list[Pace], list[str]]:
    """Everybody's pace at batch 1 and at the settings' batch size, and what there is to say about it."""
    settings, notes = bench.settings, list[str]()
    generate = bench.generate() if GENERATE in settings.against else None
    if isinstance(generate, str):
        notes.append(f"generate was not timed: {generate}")
        generate = None
    found: list[Pace] = []
    races = [(batch, k) for batch in sorted({1, settings.batching.size}) for k in settings.top_k]
    for number, (batch, k) in enumerate(races):
        rounds = rounds_of(examples, batch, settings.timed_users)
        contestants = {name: served_by(own, k) for name, own in recommenders.items()}
        if generate is not None and batch == 1:
            contestants[GENERATE] = _generating(generate, recommenders, k)
        told = partial(_told, progress, "rounds of walltime", number * len(rounds), len(races) * len(rounds))
        seconds, answers = take_turns(contestants, rounds, seed=settings.seed + number, progress=told)
        of_batch = told_once(paces(seconds, settings.against, k, batch), _idle(bench, answers), PLAIN)
        found += [replace(p, differing=_unlike(bench, answers)) if p.name == GENERATE else p for p in of_batch]
    if settings.timed_users < FEWEST:
        notes.append(
            f"{settings.timed_users} rounds of walltime are too few for 95 % intervals ({FEWEST} at least): the "
            "brackets hold the lowest and the highest"
        )
    unlike = sum(pace.differing or 0 for pace in found)
    if unlike:
        rounded = EngineName.of(bench.engine).precision != bench.bundle.manifest.precision
        expected = f"it runs the checkpoint, not {bench.engine}" if rounded else "expected none"
        notes.append(f"{unlike} strict lists are not those of generate; {expected}")
    return found, notes


def _generating(generate: Generate, recommenders: Mapping[str, Recommender], k: int) -> Contestant[Sequence[Example]]:
    encode = next(iter(recommenders.values())).encode
    return lambda users: generate(encode(users[0].history).prompt, k)


def _idle(bench: Bench, answers: Mapping[str, list[object]]) -> set[str]:
    """Strict searches that did in every round what plain beam search did, because nothing was drafted."""
    work = {name: [_work(answer) for answer in each] for name, each in answers.items() if name != GENERATE}
    return {
        one.name
        for one in bench.searches
        if one.exact and one.drafting != "fixed" and work[one.name] == work.get(PLAIN)
    }


def _work(answer: object) -> list[RequestStats]:
    """What every request of a round cost."""
    assert isinstance(answer, list)
    return [result.stats for result in answer if isinstance(result, Recommendation)]


def _unlike(bench: Bench, answers: Mapping[str, list[object]]) -> int | None:
    """Lists of `generate` that are not our exact ones; None where no search is exact."""
    exact = next((search.name for search in bench.searches if search.exact or search.name == PLAIN), None)
    if exact is None:
        return None
    leaf_of, position = bench.loaded.trie.leaf_of, bench.loaded.catalog.position
    count = 0
    for ours, theirs in zip(answers[exact], answers[GENERATE], strict=True):
        assert isinstance(ours, list)
        assert isinstance(theirs, list)
        (result,) = ours
        assert isinstance(result, Recommendation)
        leaves = {int(leaf_of[position[entry.item]]): entry.score for entry in result.items}  # items may share one
        expected = theirs[: len(leaves)]
        same = same_list(list(leaves), list(leaves.values()), [x for x, _ in expected], [y for _, y in expected])
        count += not same
    return count


def _unlike_training(bundle: Bundle) -> list[str]:
    """That the target was trained with another prompt than it was exported with, if so."""
    asked, trained = bundle.manifest.prompt_options, bundle.manifest.trained_prompt
    if not isinstance(asked, PromptOptions) or not isinstance(trained, PromptOptions):
        return []
    other = contradictions(asked, trained)
    return [f"the target was trained with another prompt: {contrast(asked, trained, other)}"] if other else []


def _remarks(data: DataFacts, figures: Sequence[ModeFigures]) -> list[str]:
    """What is not as one would expect."""
    notes = []
    if data.left_out:
        notes.append(f"{data.left_out} requests are left out: no item of their history is in the bundle's catalog")
    if data.unknown_labels:
        notes.append(f"{data.unknown_labels} of {data.labels} labels are not in the bundle's catalog: always missed")
    if data.rejects:
        notes.append(f"{data.rejects} lines of the dataset could not be used")
    for mode in figures:
        unlike = sum(at.differing or 0 for at in mode.at)
        if unlike:
            total = data.requests * len(mode.at)
            notes.append(f"{unlike} of {total} {mode.search.name} lists are not those of plain beam search")
    return notes
