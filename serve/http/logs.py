"""The log: a line of JSON for each request and event. No history, no title and no token is ever in it."""

import logging
import sys
from datetime import UTC, datetime
from threading import Lock
from traceback import extract_tb
from typing import IO, final

import msgspec


@final
class Log:
    """Writes lines of JSON. Safe to share between threads."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        """stream: None: standard error, as it is when a line is written."""
        self._stream, self._lock = stream, Lock()

    def write(self, event: str, **facts: object) -> None:
        """One line; facts that are None are left out."""
        told = {name: value for name, value in facts.items() if value is not None}
        line = msgspec.json.encode(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event} | told
        )
        stream = self._stream or sys.stderr
        with self._lock:
            stream.write(line.decode() + "\n")
            stream.flush()

    def failed(self, error: BaseException, **facts: object) -> None:
        """What nobody expected, and where it was raised."""
        place = extract_tb(error.__traceback__)[-5:]
        at = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in place]
        self.write("error", error=_shown(error), at=at, **facts)


@final
class IntoLog(logging.Handler):
    """Takes what a library logs into our lines."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._log.write(record.name, level=record.levelname.lower(), message=record.getMessage(), error=_shown(error))


def _shown(error: BaseException | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"
