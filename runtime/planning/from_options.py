"""Who drafts and how much: what the options mean together, checked before an engine is loaded."""

from ...catalog.errors import OptionError
from ...catalog.trie import ItemTrie
from ...engines.bundle.items import Bundle
from ..options import Drafting, Verification
from ..types import DrafterKind, DraftShape
from .policy import FixedPlanning, Planning
from .tuning_file import planner_for


def drafter_for(bundle: Bundle, drafter: DrafterKind | None, *, has_pool: bool) -> DrafterKind | None:
    """Who drafts: what was asked for, else all that there is; None: there is nothing to draft by.

    Raises `BundleError` where the bundle has no draft for it, and `OptionError` where the pool does not fit it.
    """
    has_draft = bundle.manifest.draft is not None
    if drafter is None:
        if has_pool:
            return "both" if has_draft else "retrieval"
        return "model" if has_draft else None
    if drafter in ("model", "both"):
        bundle.facts("draft")
    if drafter in ("retrieval", "both") and not has_pool:
        raise OptionError(
            f"the drafter {drafter} needs a pool. Build one with: specbeam build-pool --items HISTORIES --output POOL"
        )
    if drafter in ("model", "none") and has_pool:
        raise OptionError(f"a pool is for the drafters retrieval and both; got {drafter}. Leave one of the two out.")
    return drafter


def planning_for(
    bundle: Bundle, engine: str, trie: ItemTrie, verification: Verification, drafting: Drafting, *, threads: int
) -> Planning:
    """How much is drafted; raises `OptionError` for what cannot be combined.

    drafting: with the drafter of `drafter_for` (None: there is nothing to draft by).
    """
    drafter, speculation, shape, pool = drafting.drafter, drafting.speculation, drafting.shape, drafting.opened_pool()
    if drafter == "none":
        if speculation or shape:
            raise OptionError("without a drafter nothing is drafted. Leave the speculation, the width and length out.")
        return FixedPlanning(None)
    if (shape is not None or speculation == "fixed") and drafter is None:
        raise OptionError(
            f"{bundle.path} has no draft model, and there is no pool: leave out the draft's width and length, and "
            "--speculation fixed."
        )
    if speculation == "auto":
        _check_auto(verification)
    by_hand = speculation == "fixed" or shape is not None or not verification.lossless
    if by_hand or (speculation is None and not bundle.is_measured(engine)):
        return FixedPlanning((shape or DraftShape()) if drafter else None)
    scoring = "constrained" if verification.mode == "sampled" else verification.scoring or "full"
    return planner_for(
        bundle, engine, trie, verification.mode, scoring, drafter=drafter,
        pool=None if pool is None else pool.checksum, threads=threads,
    )  # fmt: skip


def _check_auto(verification: Verification) -> None:
    if not verification.lossless:
        raise OptionError(
            f"the lists of {verification.mode} verification depend on what is drafted, and auto drafts what pays on "
            "the machine at hand. Use --speculation fixed."
        )
