"""uvicorn, but: signals are ours, a request's head must be here in time, and there are at most so many connections."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...catalog.errors import OptionError
from .limits import Limits

KEEP_ALIVE = 15  # seconds that a connection may be idle


@final
class Server(uvicorn.Server):
    """One listener. Whoever runs it sets `should_exit` to end it: what is being answered is answered first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise them again once it has ended."""
        yield


def server(app: ASGIApp, limits: Limits) -> Server:
    """A server for an application; to be run by `serve(sockets=[...])`."""

    class Bounded(BoundedProtocol):
        most_connections, read_seconds = 2 * limits.concurrency, limits.read_ms / 1000

    return Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", loop="asyncio", http=Bounded, ws="none",
            server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE,
        )
    )  # fmt: skip


def listening(host: str, port: int, limits: Limits) -> socket.socket:
    """A socket that listens; port 0: any that is free. Raises `OptionError` where it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError, OverflowError) as error:
        raise OptionError(f"cannot listen on {host}, port {port}: {error}. Choose another address or port.") from None
    # Connections inherit these. A head and a body are two writes, of which the second would wait 40 ms for the client's
    # acknowledgement of the first; a client that takes nothing of its answer is left after so long.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.read_ms)
    return bound


class BoundedProtocol(H11Protocol):
    """One connection."""

    most_connections: int
    read_seconds: float
    _head: asyncio.TimerHandle | None = None  # until when the head that has begun must be here

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._leave_head()
        elif self._head is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.read_seconds, self.transport.abort)

    def _leave_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


def address(bound: socket.socket) -> dict[str, Any]:
    """Where a socket listens, as the log tells it."""
    if bound.family == socket.AF_UNIX:
        return {"socket": bound.getsockname()}
    host, port = bound.getsockname()[:2]
    return {"host": host, "port": port, "url": f"http://{f'[{host}]' if ':' in host else host}:{port}"}
