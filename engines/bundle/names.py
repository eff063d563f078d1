"""Engines' names: `<backend>-<device>-<precision>`, and `-draft-<precision>` where the draft has another."""

import re
from typing import NamedTuple

from .facts import EnginePrecision

# A backend and a precision have a dash of their own: tensorrt-rtx, int8-weights.
_NAME = re.compile(r"(?P<backend>tensorrt-rtx|[^-]+)-(?P<device>[^-]+)-(?P<precision>.+?)(?:-draft-(?P<draft>.+))?")


class EngineName(NamedTuple):
    """What an engine's name says. Of a name that is none, the backend is all of it, and the rest is empty."""

    backend: str
    device: str = ""
    precision: str = ""
    draft: str | None = None  # the draft's precision, where it is another than the target's

    @classmethod
    def of(cls, name: str) -> "EngineName":
        """Read a name."""
        found = _NAME.fullmatch(name)
        return cls(name) if found is None else cls(**found.groupdict())


def engine_name(backend: str, device: str, precision: EnginePrecision, draft: EnginePrecision | None = None) -> str:
    """An engine's folder in `engines/`; the draft's precision is in it where it is another than the target's."""
    name = f"{backend}-{device}-{precision}"
    return name if draft in (None, precision) else f"{name}-draft-{draft}"
