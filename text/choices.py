"""What a text generator is opened with, checked: a pool that fits, how much is drafted, how many share a call."""

from pathlib import Path

from ..catalog import checks
from ..catalog.errors import OptionError, PoolError
from ..engines.bundle.texts import TextBundle
from ..pools.texts.branches import TextDrafting
from ..pools.texts.pool import TextPool
from ..runtime.arguments import checked_batching
from ..runtime.options import Batching
from ..runtime.planning.costs import CallCosts
from .planning import AllOfIt, ByCost, TextPlanning
from .types import TextVerification


def batch_of_texts(batching: Batching | int | None) -> int:
    """Prompts in one call. Raises `OptionError` where memory is limited, which is for lists of items."""
    given = checked_batching(batching)
    if given.memory is not None:
        raise OptionError(
            f"a batch's memory of {given.memory} bytes is for lists of items; of texts, a smaller batch takes less. "
            "Leave it out."
        )
    return given.size


def fitting_pool(pool: str | Path | TextPool, bundle: TextBundle, drafting: TextDrafting | None) -> TextPool:
    """A pool that fits the bundle and the drafts; raises `PoolError` for others."""
    opened = pool if isinstance(pool, TextPool) else TextPool.open(pool)
    if opened.tokenizer_sha256 != bundle.manifest.tokenizer_sha256:
        raise PoolError(
            f"{opened.path} was built with another tokenizer than that of {bundle.path}: its tokens mean other text. "
            f"Build it again with: specbeam build-pool TEXTS.jsonl --tokenizer {bundle.path} --output POOL"
        )
    if opened.highest >= bundle.manifest.vocabulary:
        raise PoolError(
            f"{opened.path} holds token {opened.highest}; the vocabulary of {bundle.path} has "
            f"{bundle.manifest.vocabulary}. Build it again with: specbeam build-pool TEXTS.jsonl --tokenizer "
            f"{bundle.path} --output POOL"
        )
    if drafting is not None and opened.facts.reach < drafting.reach:
        raise PoolError(
            f"{opened.path} holds windows of {opened.facts.reach} tokens; to look up {drafting.query} and draft "
            f"{drafting.depth} takes {drafting.reach}. Build it again with --query {drafting.query} --depth "
            f"{drafting.depth}, or ask for less."
        )
    return opened


def planning_for(
    bundle: TextBundle, engine: str, speculation: str | None, verification: TextVerification
) -> TextPlanning:
    """How much is drafted; raises `OptionError` for auto without a measured latency."""
    if speculation is not None:
        checks.choice(speculation, "speculation", ("auto", "fixed"))
    measured = bundle.is_measured(engine)
    if speculation == "auto" and not measured:
        raise OptionError(f"{engine} has no measured latency to plan by. {bundle.measuring(engine)}")
    if speculation == "fixed" or not measured or (speculation is None and verification.mode == "relaxed"):
        return AllOfIt()
    return ByCost(CallCosts(latency=bundle.engine_facts(engine).roles["target"].latency))
