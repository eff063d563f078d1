"""What a Triton model is opened and served with, as it stands in its config.pbtxt."""

from typing import NamedTuple

import msgspec

from ...catalog.errors import OptionError
from ..protocol.rules import UnknownItems
from ..settings import Positive, Settings, settings_of

KEY = "specbeam"  # of config.pbtxt's parameters


class TritonLimits(NamedTuple):
    """How much a request may ask for."""

    items: int
    k: int | None
    entries: int
    timeout_ms: int


class TritonSettings(Settings, frozen=True, omit_defaults=True):
    """With what requests are held to; a pool's path is below the version's folder."""

    unknown_items: UnknownItems = "drop"
    max_items: Positive = 1000  # of a history
    max_k: Positive | None = None  # the longest list; None: the longest that the model serves
    max_entries: Positive = 64  # histories in one request
    timeout_ms: Positive = 10_000  # until an answer, whatever a request asks for

    @property
    def limits(self) -> TritonLimits:
        """How much a request may ask for."""
        return TritonLimits(self.max_items, self.max_k, self.max_entries, self.timeout_ms)


def read_settings(text: str) -> TritonSettings:
    """The settings of a parameter's JSON. Raises `OptionError` with the key that is at fault."""
    try:
        return settings_of(text, TritonSettings, "value")
    except OptionError as error:
        raise OptionError(
            f"config.pbtxt, parameter {KEY!r}: {error} Correct it, or write the file anew: specbeam package-triton "
            "--overwrite"
        ) from None


def written_settings(settings: TritonSettings) -> str:
    """The same as JSON, what is as by default left out."""
    return msgspec.json.encode(settings).decode()
