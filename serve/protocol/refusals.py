"""Whatever goes wrong as a refusal: one status, one code and one message for each; no path, no traceback."""

import asyncio
import re

from ...catalog.errors import HistoryError, OptionError
from ..errors import Cancelled, Closed, DeadlinePassed, Overloaded, TooLarge
from ..models import UnknownModel

CODES = {
    400: "invalid", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 408: "slow_body",
    413: "too_large", 415: "unsupported_encoding", 429: "overloaded", 499: "client_gone", 500: "internal",
    503: "not_ready", 504: "deadline_passed",
}  # fmt: skip
INTERNAL = "the server failed at this request; its log says how, under this request's id."
HOST_PATH = re.compile(r"(?<![\w./])/(?!v[12]\b)[^\s'\",:;)]+")


class Refused(Exception):
    """A request that is answered by an error. Statuses are HTTP's, whatever carries the answer."""

    def __init__(
        self, status: int, message: str, *, field: str | None = None, retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """field: of what was sent, where one is at fault; retry_after: seconds."""
        super().__init__(message)
        self.status, self.message, self.field = status, message, field
        self.retry_after, self.headers = retry_after, headers or {}

    @property
    def code(self) -> str:
        """The status in a word."""
        return CODES.get(self.status, "refused")


def refusal(error: BaseException) -> Refused:
    """What is answered in place of an error. Errors that no client can mend are not told in their own words."""
    match error:
        case Refused():
            return error
        case HistoryError():
            return Refused(400, scrubbed(error), field="items")
        case OptionError():
            return Refused(400, scrubbed(error))
        case UnknownModel():
            return Refused(404, scrubbed(error), field="model")
        case Overloaded():
            return Refused(429, str(error), retry_after=error.retry_after)
        case TooLarge():
            return Refused(413, str(error))
        case DeadlinePassed() | TimeoutError():
            return Refused(504, "the deadline passed before the list was found.", field="deadline_ms")
        case Closed():
            return Refused(503, "the server stops: ask another one.", retry_after=1.0)
        case Cancelled() | asyncio.CancelledError():
            return Refused(499, "the request was cancelled.")
        case _:
            return Refused(500, INTERNAL)


def scrubbed(error: BaseException) -> str:
    """An error's message without what may be a path of this host."""
    return HOST_PATH.sub("(a path)", str(error))
