"""What `specrec tune` measured for one engine of a bundle, and the planner that it gives."""

from pathlib import Path
from typing import get_args

from msgspec.structs import replace

from ..catalog.errors import OptionError
from ..catalog.files import Frozen, whole_file
from ..catalog.trie import ItemTrie
from ..engines.bundle import Bundle
from ..engines.facts import EngineFacts, Role
from ..engines.sealed import SCHEMA_VERSION, Sealed, read_sealed, sealed
from .acceptance import Acceptance, AcceptanceCounts
from .costs import CallCosts
from .planner import Planner
from .prefix import worth_sharing
from .types import Mode, ScoringKind


class CallFit(Frozen, frozen=True):
    """How the calls of one role differ in the loop from calls measured alone; see `CallCosts`."""

    scale: float = 1.0
    host_call_ms: float = 0.0
    host_node_ms: float = 0.0


# What a machine that was never tuned is believed to need of the host.
UNTUNED = CallFit(host_call_ms=0.3, host_node_ms=0.0005)


class Tuning(Sealed, frozen=True, kw_only=True):
    """tuning-<mode>-<scoring>.json in an engine's folder."""

    graphs: dict[str, str]  # role to the graph's hash, as in engine.json: acceptance is that of one pair
    mode: Mode
    scoring: ScoringKind
    users: int  # whose histories were run
    threads: int
    fits: dict[str, CallFit]  # by role
    acceptance: AcceptanceCounts


def planner_for(
    bundle: Bundle, engine: str, trie: ItemTrie, mode: Mode, scoring: ScoringKind, *, draft: bool, threads: int
) -> Planner:
    """A planner for one engine: by what was tuned for this mode and scoring, else by the engine's own latency.

    draft: whether a model may draft. Raises `OptionError` where the engine has no measured latency.
    """
    if engine.partition("-")[0] == "torch":
        raise OptionError(
            f"{engine} has no measured latency to plan by. Use --speculation fixed, or an engine made by build-engine."
        )
    facts = bundle.engine_facts(engine)
    tuning = read_tuning(bundle, engine, facts, mode, scoring)
    fits = next(
        (t.fits for t in (tuning, *tunings(bundle, engine, facts)) if t is not None and t.threads == threads), {}
    )
    roles: tuple[Role, ...] = get_args(Role)
    costs = {
        role: CallCosts(
            latency=facts.roles[role].latency, scale=fit.scale, host_call_ms=fit.host_call_ms,
            host_node_ms=fit.host_node_ms,
        )
        for role in roles
        if role in facts.roles
        for fit in [fits.get(role, UNTUNED)]
    }  # fmt: skip
    acceptance = Acceptance(trie, scoring)
    if tuning is not None:
        acceptance = Acceptance.from_snapshot(tuning.acceptance, trie, scoring)
    shared = worth_sharing(len(bundle.manifest.prompt.prefix_ids))
    return Planner(costs["target"], costs.get("draft") if draft else None, acceptance, shared_prefix=shared)


def tuning_file(bundle: Bundle, engine: str, mode: Mode, scoring: ScoringKind) -> Path:
    """Where a tuning is kept."""
    return bundle.path / "engines" / engine / f"tuning-{mode}-{scoring}.json"


def read_tuning(bundle: Bundle, engine: str, facts: EngineFacts, mode: Mode, scoring: ScoringKind) -> Tuning | None:
    """What was tuned, or None; raises `BundleError` where the file is damaged or of another pair of graphs."""
    path = tuning_file(bundle, engine, mode, scoring)
    if not path.is_file():
        return None
    tuning = read_sealed(
        path, Tuning, f"specrec tune {bundle.path} HISTORIES --engine {engine} (or do without it: --speculation fixed)"
    )
    return tuning if tuning.graphs == graphs_of(facts) else None


def tunings(bundle: Bundle, engine: str, facts: EngineFacts) -> list[Tuning]:
    """Everything that was tuned for an engine, whatever the mode and scoring."""
    pairs = [(mode, scoring) for mode in get_args(Mode) for scoring in get_args(ScoringKind)]
    found = [read_tuning(bundle, engine, facts, mode, scoring) for mode, scoring in pairs]
    return [tuning for tuning in found if tuning is not None]


def write_tuning(bundle: Bundle, engine: str, tuning: Tuning) -> Path:
    """Keep what was tuned, in place of an earlier one."""
    path = tuning_file(bundle, engine, tuning.mode, tuning.scoring)
    with whole_file(path) as file:
        file.write(sealed(replace(tuning, schema_version=SCHEMA_VERSION)))
    return path


def graphs_of(facts: EngineFacts) -> dict[str, str]:
    """Role to the hash of its graph."""
    return {role: role_facts.source_sha256 for role, role_facts in facts.roles.items()}
