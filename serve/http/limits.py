"""What a client may cost: how much it sends, how slowly, and how much it asks for at once."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from ...catalog import checks
from ..protocol.refusals import Refused

T = TypeVar("T")
MOST_MS = 86_400_000  # a day


@dataclass(frozen=True)
class Limits:
    """Limits of one server. Raises `OptionError` for what is none."""

    body: int = 1 << 20  # bytes of a request's body
    items: int = 1000  # of a history
    k: int | None = None  # the longest list; None: the longest that the model serves
    entries: int = 64  # requests in one body
    concurrency: int = 1024  # HTTP requests at once
    timeout_ms: int = 10_000  # until an answer, at most, whatever a request asks for
    read_ms: int = 10_000  # until a request's head and then its body are here, and until an answer is taken

    def __post_init__(self) -> None:
        checks.within(self, 1, body=checks.LARGEST, items=checks.LARGEST, k=checks.LARGEST, entries=checks.LARGEST)
        checks.within(self, 1, concurrency=checks.LARGEST, timeout_ms=MOST_MS, read_ms=MOST_MS)


async def read_body(request: Request, limits: Limits) -> bytes:
    """A request's body. Raises `Refused`: 415 for one that is compressed, 413, 408, and 499 where the client left."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise Refused(415, f"got a body with Content-Encoding {encoding[:40]!r}; expected one that is not compressed.")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limits.body:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.read_ms / 1000):
            return await _joined(request, limits)
    except TimeoutError:
        raise Refused(408, f"the body was not here after {limits.read_ms} ms.", headers=CLOSE) from None
    except ClientDisconnect:
        raise Refused(499, "the client left.") from None


async def _joined(request: Request, limits: Limits) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.body:
            raise _too_large(limits)
    return bytes(body)


CLOSE = {"Connection": "close"}


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the body is larger than {limits.body} bytes; send less at once.", headers=CLOSE)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it is cancelled where the client leaves before. To be called once the body is read."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refused(499, "the client left.")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
