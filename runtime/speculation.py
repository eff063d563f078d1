"""Which planning was asked for: what the options mean together, checked before an engine is loaded."""

from ..catalog.errors import OptionError
from ..catalog.trie import ItemTrie
from ..engines.bundle import Bundle
from .planning import FixedPlanning, Planning
from .tuning import planner_for
from .types import DraftShape
from .verification import Verification


def planning_for(
    bundle: Bundle,
    engine: str,
    trie: ItemTrie,
    verification: Verification,
    *,
    threads: int,
    drafter: str | None,
    speculation: str | None,
    shape: DraftShape | None,
) -> Planning:
    """What `Recommender.open` explains; raises `OptionError` for what cannot be combined."""
    if drafter not in ("model", "none", None):
        raise OptionError(f"got the drafter {drafter!r}; expected 'model' or 'none'.")
    if speculation not in ("auto", "fixed", None):
        raise OptionError(f"got the speculation {speculation!r}; expected 'auto' or 'fixed'.")
    if drafter == "none":
        if speculation or shape:
            raise OptionError("without a drafter nothing is drafted. Leave the speculation, the width and length out.")
        return FixedPlanning(None)
    has_draft = bundle.manifest.draft is not None
    if (shape is not None or speculation == "fixed") and not has_draft:
        raise OptionError(
            f"{bundle.path} has no draft model: leave out the draft's width and length, and --speculation fixed."
        )
    if speculation == "auto":
        _check_auto(verification, shape)
    by_hand = speculation == "fixed" or shape is not None or not verification.lossless
    if by_hand or (speculation is None and engine.startswith("torch-")):
        return FixedPlanning((shape or DraftShape()) if has_draft else None)
    scoring = "constrained" if verification.mode == "sampled" else verification.scoring or "full"
    return planner_for(bundle, engine, trie, verification.mode, scoring, draft=has_draft, threads=threads)


def _check_auto(verification: Verification, shape: DraftShape | None) -> None:
    if shape is not None:
        raise OptionError(f"auto decides how much to draft; got {shape} as well. Leave one of the two out.")
    if not verification.lossless:
        raise OptionError(
            f"the lists of {verification.mode} verification depend on what is drafted, and auto drafts what pays on "
            "the machine at hand. Use --speculation fixed."
        )
