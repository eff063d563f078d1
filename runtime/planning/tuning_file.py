"""What `specbeam tune` measured for one engine of a bundle, and the planner that it gives."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from math import isfinite
from pathlib import Path
from typing import get_args

from msgspec.structs import replace

from ...catalog.bounds import AboveZero, Number, Positive, Size
from ...catalog.errors import BundleError, OptionError, SpecBeamError
from ...catalog.files import Frozen, whole_file
from ...catalog.trie import ItemTrie
from ...engines.bundle.facts import EngineFacts, LatencyPoint
from ...engines.bundle.items import Bundle
from ...engines.bundle.sealed import Sealed, read_sealed, sealed
from ..search.prefix import worth_sharing
from ..types import DrafterKind, Mode, ScoringKind
from .acceptance import Acceptance, AcceptanceCounts
from .costs import CallCosts
from .planner import Planner


class CallFit(Frozen, frozen=True):
    """How the calls of one role differ in the loop from calls measured alone; see `CallCosts`, and `LOOKING_UP`."""

    scale: AboveZero = 1.0
    host_call_ms: Number = 0.0
    host_node_ms: Number = 0.0

    def __post_init__(self) -> None:
        times = self.scale, self.host_call_ms, self.host_node_ms
        if not (all(map(isfinite, times)) and self.scale > 0 and min(times) >= 0):
            raise ValueError(f"got {self}; expected a positive scale and host times of 0 or more")


# What a machine that was never tuned is believed to need of the host, and for guesses from a pool.
UNTUNED = CallFit(host_call_ms=0.3, host_node_ms=0.0005)
UNTUNED_POOL = CallFit(scale=0.005, host_call_ms=0.15, host_node_ms=0.003)
TUNING_SCHEMA = 3
WITH_POOL: tuple[DrafterKind, ...] = ("retrieval", "both")
# Guesses from a pool have no engine; looking up histories takes `scale` milliseconds a token of the prompts.
LOOKING_UP = tuple(
    LatencyPoint(batch=batch, past=0, new=new, milliseconds=batch * new) for batch in (1, 8) for new in (1, 512)
)


class Tuning(Sealed, frozen=True, kw_only=True):
    """tuning-<mode>-<scoring>.json in an engine's folder; where a pool has part in the drafts, -<drafter> behind it."""

    graphs: dict[str, str]  # role to the graph's hash, as in engine.json: acceptance is that of one pair
    mode: Mode
    scoring: ScoringKind
    drafter: DrafterKind | None  # None: there was nothing to draft by
    pool: str | None  # the checksum of the pool that was drafted from: acceptance is that of one pool
    users: Size  # requests that were run
    threads: Positive
    fits: dict[str, CallFit]  # by role
    acceptance: AcceptanceCounts


def planner_for(
    bundle: Bundle,
    engine: str,
    trie: ItemTrie,
    mode: Mode,
    scoring: ScoringKind,
    *,
    drafter: DrafterKind | None,
    pool: str | None,
    threads: int,
) -> Planner:
    """A planner for one engine: by what was tuned for this mode, scoring and drafter, else by the engine's own latency.

    drafter: None where nothing can be drafted by; pool: the checksum of what is drafted from. Raises `OptionError`
    where the engine has no measured latency.
    """
    if not bundle.is_measured(engine):
        raise OptionError(f"{engine} has no measured latency to plan by. {bundle.measuring(engine)}")
    facts = bundle.engine_facts(engine)
    tuning = read_tuning(bundle, engine, facts, mode, scoring, drafter)
    others = trie.length != bundle.manifest.identifier_length  # a catalog that came later, of other depths
    if tuning is not None and (others or tuning.pool != pool):
        tuning = None
    found = [t for t in (tuning, *tunings(bundle, engine, facts)) if t is not None and t.threads == threads]
    fits = {role: fit for each in reversed(found) for role, fit in each.fits.items()}
    acceptance = Acceptance(trie, scoring)
    if tuning is not None:
        try:
            acceptance = Acceptance.from_snapshot(tuning.acceptance, trie, scoring)
        except SpecBeamError as error:
            raise BundleError(
                f"{tuning_file(bundle, engine, mode, scoring, drafter)}: {error} Tune again: "
                f"{_again(bundle, engine, mode, scoring, drafter)}"
            ) from None
    decoded = bundle.manifest.target.encoder is None  # an encoder reads all of every prompt
    shared = worth_sharing(len(bundle.manifest.prompt.prefix_ids)) if decoded else 0
    target = _costs(facts.roles["target"].latency, fits.get("target", UNTUNED))
    draft = _draft_costs(facts, fits, drafter)
    return Planner(target, draft, acceptance, shared_prefix=shared, tuned=tuning is not None)


def _draft_costs(facts: EngineFacts, fits: Mapping[str, CallFit], drafter: DrafterKind | None) -> CallCosts | None:
    """What a level of a draft costs; None where nobody drafts."""
    fit, pool = fits.get("draft", UNTUNED), fits.get("pool", UNTUNED_POOL)
    if drafter == "retrieval":
        return _costs(LOOKING_UP, pool)
    draft = facts.roles.get("draft") if drafter in ("model", "both") else None
    if draft is None or drafter == "model":
        return None if draft is None else _costs(draft.latency, fit)
    return CallCosts(
        latency=tuple(
            replace(point, milliseconds=fit.scale * point.milliseconds + pool.scale * point.batch * point.new)
            for point in draft.latency
        ),
        host_call_ms=fit.host_call_ms + pool.host_call_ms, host_node_ms=fit.host_node_ms + pool.host_node_ms,
    )  # fmt: skip


def _costs(latency: tuple[LatencyPoint, ...], fit: CallFit) -> CallCosts:
    return CallCosts(
        latency=latency, scale=fit.scale, host_call_ms=fit.host_call_ms, host_node_ms=fit.host_node_ms
    )  # fmt: skip


def tuning_file(
    bundle: Bundle, engine: str, mode: Mode, scoring: ScoringKind, drafter: DrafterKind | None = "model"
) -> Path:
    """Where a tuning is kept."""
    kind = f"-{drafter}" if drafter in WITH_POOL else ""
    return bundle.path / "engines" / engine / f"tuning-{mode}-{scoring}{kind}.json"


def read_tuning(
    bundle: Bundle, engine: str, facts: EngineFacts, mode: Mode, scoring: ScoringKind, drafter: DrafterKind | None
) -> Tuning | None:
    """What was tuned, or None; raises `BundleError` where the file is damaged or of another pair of graphs."""
    path = tuning_file(bundle, engine, mode, scoring, drafter)
    if not path.is_file():
        return None
    tuning = read_sealed(path, Tuning, _again(bundle, engine, mode, scoring, drafter), TUNING_SCHEMA)
    return tuning if (tuning.graphs, tuning.drafter) == (graphs_of(facts), drafter) else None


def _again(bundle: Bundle, engine: str, mode: Mode, scoring: ScoringKind, drafter: DrafterKind | None) -> str:
    words = f"specbeam tune {shlex.quote(str(bundle.path))} HISTORIES --engine {engine}"
    words += f" --verify {mode}" if mode != "strict" else f" --scoring {scoring}"
    words += f" --drafter {drafter} --pool POOL" if drafter in WITH_POOL else ""
    return f"{words} (or do without it: --speculation fixed)"


def tunings(bundle: Bundle, engine: str, facts: EngineFacts) -> list[Tuning]:
    """Everything that was tuned for an engine, in whatever mode, scoring and by whatever drafter; no damaged files."""
    kinds: tuple[DrafterKind | None, ...] = (None, "model", *WITH_POOL)
    found = []
    for case in product(get_args(Mode), get_args(ScoringKind), kinds):
        with suppress(BundleError):  # said where that tuning itself is asked for
            found.append(read_tuning(bundle, engine, facts, *case))
    return [tuning for tuning in found if tuning is not None]


def write_tuning(bundle: Bundle, engine: str, tuning: Tuning) -> Path:
    """Keep what was tuned, in place of an earlier one."""
    path = tuning_file(bundle, engine, tuning.mode, tuning.scoring, tuning.drafter)
    with whole_file(path, replace=True) as file:
        file.write(sealed(tuning))
    return path


def graphs_of(facts: EngineFacts) -> dict[str, str]:
    """Role to the hash of its graph."""
    return {role: role_facts.source_sha256 for role, role_facts in facts.roles.items()}
