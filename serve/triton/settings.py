"""What a Triton model is opened and served with, as it stands in its config.pbtxt."""

from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from ...catalog.errors import OptionError
from ...catalog.files import Frozen
from ...runtime.options import Batching, Drafting, EngineChoice, Speculation, Verification
from ...runtime.types import DrafterKind, DraftShape, Mode, ScoringKind
from ..opening import Opening
from ..options import Policy, Serving
from ..protocol.rules import UnknownItems

KEY = "specbeam"  # of config.pbtxt's parameters
Positive = Annotated[int, msgspec.Meta(ge=1)]


class TritonLimits(NamedTuple):
    """How much a request may ask for."""

    items: int
    k: int | None
    entries: int
    timeout_ms: int


class TritonSettings(Frozen, frozen=True, omit_defaults=True):
    """As the options of `specbeam serve` of the same names; paths are below the version's folder."""

    engine: str | None = None
    threads: Positive | None = None
    batch_size: Positive = 8
    policy: Policy | None = None
    wait_ms: float | None = None
    queue: Positive | None = None
    verify: Mode = "strict"
    scoring: ScoringKind | None = None
    drafter: DrafterKind | None = None
    pool: str | None = None
    speculation: Speculation | None = None
    draft_width: Positive | None = None
    draft_length: Positive | None = None
    unknown_items: UnknownItems = "drop"
    max_items: Positive = 1000  # of a history
    max_k: Positive | None = None  # the longest list; None: the longest that the model serves
    max_entries: Positive = 64  # histories in one request
    timeout_ms: Positive = 10_000  # until an answer, whatever a request asks for

    def __post_init__(self) -> None:
        self.serving()
        self.opening(Path())

    @property
    def limits(self) -> TritonLimits:
        """How much a request may ask for."""
        return TritonLimits(self.max_items, self.max_k, self.max_entries, self.timeout_ms)

    def serving(self) -> Serving:
        """How requests share calls."""
        told = {"policy": self.policy, "wait_ms": self.wait_ms, "queue": self.queue}
        return Serving(size=self.batch_size, **{name: value for name, value in told.items() if value is not None})  # type: ignore[arg-type]

    def opening(self, folder: Path) -> Opening:
        """What the model of a version's folder is opened with."""
        by_hand = {"width": self.draft_width, "length": self.draft_length}
        shape = {name: value for name, value in by_hand.items() if value is not None}
        drafting = Drafting(
            self.drafter, None if self.pool is None else folder / self.pool, self.speculation,
            DraftShape(**shape) if shape else None,
        )  # fmt: skip
        return Opening(
            EngineChoice(self.engine, threads=self.threads), drafting, Verification(self.verify, self.scoring),
            Batching(self.batch_size),
        )  # fmt: skip


def read_settings(text: str) -> TritonSettings:
    """The settings of a parameter's JSON. Raises `OptionError` with the key that is at fault."""
    try:
        return msgspec.json.decode(text, type=TritonSettings)
    except (msgspec.MsgspecError, OptionError, UnicodeError) as error:
        raise OptionError(
            f"config.pbtxt, parameter {KEY!r}: {error}. Correct it, or write the file anew: specbeam package-triton "
            "--overwrite"
        ) from None


def written_settings(settings: TritonSettings) -> str:
    """The same as JSON, what is as by default left out."""
    return msgspec.json.encode(settings).decode()
