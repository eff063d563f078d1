"""Measuring what the planner decides by: how often drafts hold what the target needs, and what calls cost."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..catalog import checks
from ..catalog.errors import HistoryError, OptionError
from ..engines.bundle.facts import EngineFacts
from ..engines.bundle.items import Bundle
from ..engines.finish import measured_facts
from ..runtime.answers import answered
from ..runtime.arguments import checked_drafting, checked_engine, checked_verification, listed_histories
from ..runtime.encoding import check_k
from ..runtime.options import Drafting, EngineChoice, Verification
from ..runtime.planning.acceptance import GRID, Acceptance
from ..runtime.planning.costs import CallCosts, fit_nonnegative
from ..runtime.planning.draft_shapes import FARTHEST
from ..runtime.planning.from_options import drafter_for
from ..runtime.planning.planner import Expected
from ..runtime.planning.policy import FixedPlanning
from ..runtime.planning.tuning_file import TUNING_SCHEMA, CallFit, Tuning, graphs_of, planner_for, write_tuning
from ..runtime.recommender import Recommender
from ..runtime.stats import DecodeStats
from ..runtime.types import Bool, DrafterKind, DraftShape, DraftTree, Float64, Frontier, Int64, Mode, Request, Verdict

TOP_K = (1, 5, 10, 20)
WIDEST = 80  # nodes drafted a level while acceptance is measured
PROBED = 16  # requests in a batch while acceptance is measured
BATCHES = (1, 8, 32)  # for the costs
SHAPES = (None, DraftShape(10, 1), DraftShape(40, 3))  # for the costs: plain, little, much
TIMED_REQUESTS, FEWEST_BATCHES = 24, 5  # of each kind of batch: so many requests, but at least so many batches

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all


class Probe(FixedPlanning):
    """Drafts widely from one depth and nothing elsewhere, and counts what became of it."""

    def __init__(self, start: int, acceptance: Acceptance) -> None:
        levels = min(acceptance.length - 1 - start, FARTHEST)
        super().__init__(DraftShape(min(WIDEST, GRID[-1]), levels) if levels else None)
        self._start, self._acceptance = start, acceptance

    def plan(self, frontier: Frontier) -> tuple[Int64, Bool]:
        widths, every = super().plan(frontier)
        return np.where((frontier.depth == self._start)[:, None], widths, 0), every

    def observe(self, before: Frontier, tree: DraftTree, verdict: Verdict) -> None:
        self._acceptance.observe(before, tree, verdict)


def tune(
    bundle: str | Path | Bundle,
    histories: Iterable[Iterable[str | int]],
    *,
    users: Iterable[str | int | None] | None = None,
    engine: EngineChoice | str | None = None,
    drafting: Drafting | DrafterKind | None = None,
    top_k: Iterable[int] = TOP_K,
    verification: Verification | Mode | None = None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Path, Tuning]:
    """Measure one engine of a bundle on histories and keep the result in its folder.

    For every K of `top_k` and every depth the histories are run with wide drafts from there; then batches of 1,
    8 and 32 are timed. Histories without a known item are left out. users: whose histories they are, where the pool
    has groups; engine, drafting: as of `Recommender.open` (how much to draft is what is measured). Raises `OptionError`
    for modes whose answer depends on what is drafted, `HistoryError` where no history can be used, and `RequestError`
    where the engine gives no numbers.
    """
    verification, choice, drafting = checked_verification(verification), checked_engine(engine), _drafting(drafting)
    ks = [checks.whole_number(k, "top_k") for k in checks.listed(top_k, "top_k", "whole numbers")]
    if not ks:
        raise OptionError("top_k is empty; expected at least one length of lists to tune for.")
    if users is None:
        histories = checks.listed(histories, "histories", "histories")
        users = [str(number) for number in range(len(histories))]
    each, names = listed_histories(histories, users)
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    for k in ks:
        check_k(k, bundle.manifest.max_top_k)
    if not verification.lossless:
        raise OptionError(f"{verification.mode} verification drafts a fixed shape: there is nothing to tune.")
    name, threads = choice.of(bundle)
    bundle.engine_facts(name)  # raises where it is absent or damaged
    if not os.access(bundle.path / "engines" / name, os.W_OK):  # before the work, not after it
        raise OptionError(f"{bundle.path} cannot be written to; the result is kept in it. Tune a copy, or change that.")
    facts = measured_facts(bundle, name, threads=threads, progress=progress)
    drafter = drafter_for(bundle, drafting.drafter, has_pool=drafting.pool is not None)
    pool, drafts = drafting.opened_pool(), drafter is not None
    recommender = Recommender.open(
        bundle, engine=EngineChoice(name, threads=threads), verification=verification,
        drafting=Drafting(drafter or "none", pool, "fixed" if drafts else None),
    )  # fmt: skip
    requests = _encoded(recommender, each, names)
    acceptance = Acceptance(recommender.trie, recommender.scoring)
    starts = range(max(acceptance.length - 1, 1)) if drafts else range(1)
    steps = [(k, start) for k in ks for start in starts]
    for done, (k, start) in enumerate(steps):
        told = partial(_told, progress, done * len(requests), len(steps) * len(requests))
        answered(
            recommender.variant(Probe(start, acceptance), min(PROBED, facts.max_batch)).run(requests, k, progress=told)
        )
    fits = _fits(recommender, requests, max(ks), facts, progress)
    tuning = Tuning(
        schema_version=TUNING_SCHEMA, graphs=graphs_of(facts), mode=verification.mode, scoring=recommender.scoring,
        drafter=drafter, pool=None if pool is None else pool.checksum, users=len(requests), threads=threads,
        fits=fits, acceptance=acceptance.snapshot(),
    )  # fmt: skip
    return write_tuning(bundle, name, tuning), tuning


def _drafting(given: Drafting | DrafterKind | None) -> Drafting:
    """What drafts; raises `OptionError` where it is nothing, or where it is said how much."""
    drafting = checked_drafting(given)
    if drafting.drafter == "none":
        raise OptionError(
            "without a drafter nothing is planned, so there is nothing to tune. Leave --drafter none out."
        )
    if drafting != Drafting(drafting.drafter, drafting.pool):
        raise OptionError(f"how much is drafted is what tuning is for; got {drafting}. Give a drafter and a pool only.")
    return drafting


def _told(progress: Progress, before: int, total: int, done: int) -> None:
    progress("acceptance", before + done, total)


def _encoded(
    recommender: Recommender, histories: Sequence[Sequence[str]], users: Sequence[str | int | None]
) -> list[Request]:
    requests = []
    for user, history in zip(users, histories, strict=True):
        try:
            requests.append(recommender.encode(history, user=user))
        except HistoryError:
            continue
    if not requests:
        raise HistoryError(f"None of {len(histories)} histories has an item of the catalog; expected some to tune on.")
    return requests


def _fits(
    recommender: Recommender,
    requests: Sequence[Request],
    k: int,
    facts: EngineFacts,
    progress: Progress,
) -> dict[str, CallFit]:
    """How calls in the loop compare with those measured alone, and what the host needs for them."""
    host: list[tuple[float, float, float]] = []  # calls, nodes and milliseconds of the host, of every timed batch
    calls: dict[str, list[tuple[float, float]]] = defaultdict(list)  # by role: predicted and real milliseconds
    levels: list[tuple[float, float, float, float]] = []  # of a pool: 1, the prompts' tokens, nodes and milliseconds
    alone: dict[str, CallCosts] = {role: CallCosts(latency=each.latency) for role, each in facts.roles.items()}
    kinds = [(batch, shape) for batch in BATCHES if batch <= facts.max_batch for shape in SHAPES]
    for done, (batch, shape) in enumerate(kinds):
        progress("cost of calls", done, len(kinds))
        variant = recommender.variant(FixedPlanning(shape), batch)
        for begin in range(max(TIMED_REQUESTS // batch, FEWEST_BATCHES) + 1):
            chosen = [requests[(begin * batch + i) % len(requests)] for i in range(batch)]
            variant.stats = DecodeStats(recommender.trie.length, log=[])
            answered(variant.run(chosen, k))
            if begin:  # the first allocates
                host.append(_host_work(variant.stats))
                for call in variant.stats.log or []:
                    if call.role == "pool":
                        nodes = call.batch * (call.new - call.prompt)
                        levels.append((1.0, call.batch * call.prompt, nodes, 1000 * call.seconds))
                        continue
                    predicted = alone[call.role].milliseconds(call.batch, call.past, call.new)
                    calls[call.role].append((predicted, 1000 * call.seconds))
    progress("cost of calls", len(kinds), len(kinds))
    if not calls:  # a catalog without choices
        return {}
    work, spent = np.array([(call, node, 1) for call, node, _ in host]), np.array([ms for _, _, ms in host])
    host_call, host_node, _ = fit_nonnegative(work, spent)  # what a batch costs besides changes nothing
    fits = {role: _fit(np.array(of_role), float(host_call), float(host_node)) for role, of_role in calls.items()}
    return fits | ({"pool": _pool_fit(np.array(levels))} if levels else {})


def _pool_fit(levels: Float64) -> CallFit:
    """What a level of guesses costs, every token of the prompts that it looks up, and every node: levels [n, 4]."""
    call, token, node = fit_nonnegative(levels[:, :3], levels[:, 3]).tolist()
    token = max(round(token, 7), 1e-7)
    return CallFit(scale=token, host_call_ms=round(call, 5), host_node_ms=max(round(node - token, 7), 0.0))


def _fit(calls: Float64, host_call: float, host_node: float) -> CallFit:
    """One role's calls [n, 2] (predicted, real): so many times as long, and so much more for each.

    The extra of a call is the lower quartile of what was seen: it varies, and believing in more than there is
    would have calls saved that are cheap.
    """
    predicted, real = calls.T
    scale, _ = fit_nonnegative(np.stack([predicted, np.ones_like(real)], axis=1), real)
    extra = max(float(np.quantile(real - scale * predicted, 0.25)), 0.0)
    return CallFit(
        scale=max(round(float(scale), 4), 0.01), host_call_ms=round(extra + host_call, 5),
        host_node_ms=round(host_node, 7),
    )  # fmt: skip


def _host_work(stats: DecodeStats) -> tuple[float, float, float]:
    log = [call for call in stats.log or [] if call.role != "pool"]
    nodes = sum(call.batch * (call.new - call.prompt) for call in log)
    return float(len(log)), float(nodes), 1000 * stats.host_seconds


def described(bundle: str | Path, path: Path, tuning: Tuning) -> str:
    """What was measured and what it leads to, for people."""
    opened = Bundle.open(bundle)
    trie = opened.trie()
    planner = planner_for(
        opened, path.parent.name, trie, tuning.mode, tuning.scoring, drafter=tuning.drafter, pool=tuning.pool,
        threads=tuning.threads,
    )  # fmt: skip
    fits = {**tuning.fits}
    pool = fits.pop("pool", None)
    scales = (f"{role} {fit.scale:.2f} times as long as alone" for role, fit in sorted(fits.items(), reverse=True))
    lines = [f"{tuning.users} requests, {tuning.mode} verification, {tuning.scoring} scoring: kept in {path}"]
    if fits:
        lines.append(f"calls in the loop: {', '.join(scales)}")
    if pool is not None:
        lines.append(
            f"guesses from the pool: {pool.scale:.4f} ms a prompt's token, {pool.host_call_ms:.2f} ms a level and "
            f"{pool.host_node_ms + pool.scale:.4f} ms a node"
        )
    lines.append("milliseconds of a batch of 8; to be chosen, drafting must save 3 % and 0.1 ms a request")
    prompt = opened.manifest.prompt
    tokens = len(prompt.prefix_ids) + len(prompt.suffix_ids)
    tokens += prompt.history_length * (trie.length + len(prompt.separator_ids))
    prompt_tokens = min(tokens, opened.manifest.max_prompt_tokens)
    top_k = sorted(width.k for width in tuning.acceptance.widths)
    for k in top_k:
        lines += ["", planner.rationale(8, prompt_tokens, k)]
    lines.append("")
    lines += [verdict(batch, {k: planner.expected(batch, prompt_tokens, k) for k in top_k}) for batch in (1, 8)]
    return "\n".join(lines)


def verdict(batch: int, expected: Mapping[int, Expected]) -> str:
    """Whether drafting pays for batches of a size, in a sentence; expected: by K."""
    pays = {k: found for k, found in expected.items() if found.drafted}
    every = {k: found for k, found in expected.items() if found.enumerated and not found.drafted}
    said = [
        *(
            f"auto will draft about {found.drafted:.0f} nodes a request and {_times(found)} for it (K = {k})"
            for k, found in pays.items()
        ),
        *(f"auto will evaluate ahead and {_times(found)} a request (K = {k})" for k, found in every.items()),
    ]
    if idle := [str(k) for k in expected if k not in pays and k not in every]:
        said.append(f"auto will draft nothing (K = {', '.join(idle)})")
    judged = f"pays{_share(pays, expected)}" if pays else "does not pay"
    if every:
        judged += f", evaluating every continuation of a depth ahead does{_share(every, expected)}"
    return f"At batch {batch}, on these histories, drafting {judged}: {'; '.join(said)}."


def _share(some: Mapping[int, Expected], expected: Mapping[int, Expected]) -> str:
    return "" if len(some) == len(expected) else f" for {len(some)} of {len(expected)} K"


def _times(found: Expected) -> str:
    return f"take {found.milliseconds:.2f} instead of {found.plain:.2f} ms"
