"""A history file of another format than was said, told by its beginning, so that it is refused as a whole."""

import io
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO

from ..errors import HistoryError
from ..packed import refuse_packed
from ..records import Reject, refuse_utf16
from .formats import read_atspeed, read_jsonl, read_lcrec, read_minionerec
from .requests import HistoryRequest, Outcome

HEAD = 1 << 16  # bytes that are looked at
LINES = 100  # of them
ENOUGH = 10  # lines of no use at all that say of a file that its format is none of ours

_READERS: dict[str, Callable[[str, IO[bytes]], Iterator[Outcome]]] = {
    "jsonl": read_jsonl,
    "minionerec": read_minionerec,
    "lcrec": read_lcrec,
    "atspeed": lambda name, file: read_atspeed([(name, file)], 0),
}


def check_format(name: str, head: bytes, format: str, *, whole: bool) -> None:
    """Raise `HistoryError` where the beginning of a file says that it is none of its `format`, naming the one it is.

    head: the first bytes. whole: they are the whole file. A file of which some line can be used passes.
    """
    if format == "parquet" and head.startswith(b"PAR1"):
        return
    if head.startswith(b"PAR1"):
        raise _other(name, format, "parquet")
    refuse_packed(name, head, HistoryError, f"specbeam ... - --format {format}")
    refuse_utf16(name, head)
    fitting = [known for known in _READERS if _usable(known, head, whole)]
    if format in fitting:
        return
    if fitting:
        raise _other(name, format, fitting[0])
    if format == "parquet":
        return  # its reader says what is wrong
    tried = [
        o for o in _outcomes(format, head, whole) if isinstance(o, Reject) and "is empty; expected" not in o.reason
    ]
    if len(tried) >= ENOUGH:
        raise HistoryError(
            f"{name}: none of its first {len(tried)} lines is {format} (line {tried[0].line}: "
            f"{tried[0].reason}), and no other format fits: {', '.join(_READERS)}, parquet. Check the "
            "file."
        )


def fitting_format(head: bytes) -> str | None:
    """The format that the beginning of a file has; None where none fits."""
    if head.startswith(b"PAR1"):
        return "parquet"
    return next((known for known in _READERS if _usable(known, head, False)), None)


def _usable(format: str, head: bytes, whole: bool) -> bool:
    users = [outcome.user for outcome in _outcomes(format, head, whole) if isinstance(outcome, HistoryRequest)]
    return bool(users) and (format != "lcrec" or "items" not in users)  # a line of JSON lines is an object, too


def _outcomes(format: str, head: bytes, whole: bool) -> Iterator[Outcome]:
    """What a format's reader makes of the first lines; nothing more where it refuses the file."""
    if not whole and format != "lcrec":  # which has no lines
        head = head[: head.rfind(b"\n") + 1]
    try:
        yield from islice(_READERS[format]("", io.BytesIO(head)), LINES)
    except HistoryError:
        return


def _other(name: str, format: str, fits: str) -> HistoryError:
    return HistoryError(
        f"{name}: its beginning is not {format} but {fits}. Pass --format {fits}, or give another file."
    )
