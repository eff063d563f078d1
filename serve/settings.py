"""What a bundle is served with, as JSON: for hosts that hand options over as text."""

from typing import Annotated, Any, TypeVar

import msgspec

from ..catalog.errors import OptionError
from ..catalog.files import Frozen
from ..runtime.options import Batching, Device, Drafting, EngineChoice, Speculation, Verification
from ..runtime.types import DrafterKind, DraftShape, Mode, ScoringKind
from .opening import Opening
from .options import Policy, Serving

S = TypeVar("S", bound=msgspec.Struct)
Whole = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class Verifying(Frozen, frozen=True):
    """How lists are verified, where that is said; see `Verification`."""

    mode: Mode | None = None
    scoring: ScoringKind | None = None
    slack: float | None = None
    temperature: float | None = None
    seed: int | None = None

    def over(self, own: Verification) -> Verification | None:
        """This in place of `own`, whose settings hold in its own mode; None: as `own`. Raises `OptionError`."""
        said = _said(self, "mode", "scoring", "slack", "temperature", "seed")
        base = vars(own) if said.get("mode", own.mode) == own.mode else {}
        return Verification(**(base | said)) if said else None


class Settings(Verifying, frozen=True):
    """What `specbeam serve` has options for, by their names; what is left out has their defaults."""

    engine: str | None = None
    device: Device | None = None
    threads: int | None = None
    policy: Policy | None = None
    batch_size: Whole | None = None
    wait_ms: float | None = None
    queue: int | None = None
    drafter: DrafterKind | None = None
    pool: str | None = None
    speculation: Speculation | None = None
    draft_width: Whole | None = None
    draft_length: Whole | None = None

    def serving(self) -> Serving:
        """How requests share calls. Raises `OptionError`, as the next one does."""
        return Serving(**_said(self, "policy", "wait_ms", "queue", batch_size="size"))

    def opening(self) -> Opening:
        """What the bundle is opened with."""
        drawn = _said(self, draft_width="width", draft_length="length")
        drafting = Drafting(self.drafter, self.pool, self.speculation, DraftShape(**drawn) if drawn else None)
        engine = EngineChoice(self.engine, self.device, self.threads)
        verification = self.over(Verification()) or Verification()
        return Opening(engine, drafting, verification, Batching(self.serving().size))


def settings_of(text: str, kind: type[S], name: str) -> S:
    """A JSON object, checked; "": the defaults. name: what errors call it. Raises `OptionError`."""
    try:
        return msgspec.json.decode(text or "{}", type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        keys = ", ".join(kind.__struct_fields__)
        raise OptionError(
            f"the {name} cannot be read: {error}. Expected a JSON object of these keys: {keys}."
        ) from None


def _said(told: Verifying, *names: str, **others: str) -> dict[str, Any]:
    """The fields that are said, by their names; others: by these."""
    wanted = {name: name for name in names} | others
    return {wanted[name]: getattr(told, name) for name in wanted if getattr(told, name) is not None}
