"""What a bundle is served with, as JSON: for hosts that hand options over as text."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ..catalog.checks import LARGEST_SEED
from ..catalog.errors import OptionError
from ..catalog.files import Frozen
from ..runtime.options import Device, Drafting, EngineChoice, Speculation, Verification
from ..runtime.types import DrafterKind, DraftShape, Mode, ScoringKind
from .opening import Opening
from .options import Policy, Serving

S = TypeVar("S", bound=msgspec.Struct)
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Verifying(Frozen, frozen=True):
    """How lists are verified, where that is said; see `Verification`."""

    mode: Mode | None = None
    scoring: ScoringKind | None = None
    slack: float | None = None
    temperature: float | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=LARGEST_SEED)] | None = None

    def over(self, own: Verification) -> Verification | None:
        """This in place of `own`, whose settings hold in its own mode; None: as `own`. Raises `OptionError`."""
        told = _told(self, "mode", "scoring", "slack", "temperature", "seed")
        base = vars(own) if told.get("mode", own.mode) == own.mode else {}
        return Verification(**(base | told)) if told else None


class Settings(Verifying, frozen=True, omit_defaults=True):
    """What `specbeam serve` has options for, by their names; what is left out has their defaults.

    Raises `OptionError` for what cannot be combined.
    """

    engine: str | None = None
    device: Device | None = None
    threads: Positive | None = None
    policy: Policy | None = None
    batch_size: Positive | None = None
    memory: Positive | None = None
    wait_ms: float | None = None
    queue: Positive | None = None
    drafter: DrafterKind | None = None
    pool: str | None = None
    speculation: Speculation | None = None
    draft_width: Positive | None = None
    draft_length: Positive | None = None

    def __post_init__(self) -> None:
        self.serving()
        self.opening()

    def serving(self) -> Serving:
        """How requests share calls."""
        return Serving(**_told(self, "policy", "wait_ms", "queue", "memory", batch_size="size"))

    def opening(self, folder: Path | None = None) -> Opening:
        """What the bundle is opened with; folder: where a pool's path begins."""
        pool = None if self.pool is None else Path(self.pool) if folder is None else folder / self.pool
        drawn = _told(self, draft_width="width", draft_length="length")
        drafting = Drafting(self.drafter, pool, self.speculation, DraftShape(**drawn) if drawn else None)
        verification = self.over(Verification()) or Verification()
        engine = EngineChoice(self.engine, self.device, self.threads)
        return Opening(engine, drafting, verification, self.serving().batching)


def settings_of(text: str, kind: type[S], name: str) -> S:
    """A JSON object, checked; "": the defaults. name: what errors call it. Raises `OptionError`."""
    try:
        return msgspec.json.decode(text or "{}", type=kind)
    except (msgspec.MsgspecError, OptionError, UnicodeError, RecursionError) as error:
        keys = ", ".join(kind.__struct_fields__)
        raise OptionError(
            f"the {name} cannot be read: {str(error).rstrip('.')}. Expected a JSON object with some of: {keys}."
        ) from None


def _told(settings: Verifying, *names: str, **others: str) -> dict[str, Any]:
    """The fields that are told, by their names; others: by these."""
    wanted = {name: name for name in names} | others
    return {wanted[name]: getattr(settings, name) for name in wanted if getattr(settings, name) is not None}
