"""A server from its first breath to its last: it listens at once, loads, warms up, serves, and drains when told to."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from threading import Thread
from typing import final

from .connections import Server, address
from .logs import IntoLog
from .service import Service

ENDING = (signal.SIGINT, signal.SIGTERM)


@final
class Lifecycle:
    """Runs servers in one event loop until a signal comes."""

    def __init__(self, service: Service, listeners: Sequence[tuple[Server, socket.socket]]) -> None:
        """listeners: the public one first."""
        self._service, self._listeners = service, listeners

    def run(self, load: Callable[[], None]) -> None:
        """Serve; `load` brings the models, in a thread. Raises what it raises, once the servers have ended."""
        asyncio.run(self._run(load))
        self._service.log.write("ended")

    async def _run(self, load: Callable[[], None]) -> None:
        log, loop = self._service.log, asyncio.get_running_loop()
        for library in ("uvicorn", "asyncio"):
            logging.getLogger(library).addHandler(IntoLog(log))
        for number in ENDING:
            loop.add_signal_handler(number, self._signalled, number)
        for _, bound in self._listeners:
            log.write("listening", pid=os.getpid(), **address(bound))
        loading = loop.create_future()
        Thread(target=_into, args=(loading, loop, load), name="specbeam-loading", daemon=True).start()
        loading.add_done_callback(self._loaded)
        await asyncio.gather(*(server.serve(sockets=[bound]) for server, bound in self._listeners))
        if loading.done() and not self._service.models.close(timeout=0 if loading.exception() else None):
            log.write("abandoned")
        if loading.done():
            loading.result()

    def _loaded(self, loading: "asyncio.Future[None]") -> None:
        if loading.exception() is not None:
            self._stop()
        elif self._service.phase == "loading":
            self._service.phase = "ready"
            self._service.log.write("ready", models=self._service.models.names)

    def _signalled(self, number: int) -> None:
        """The first signal drains; the second ends at once."""
        self._service.log.write("signal", number=number, in_flight=self._service.in_flight)
        if self._service.phase == "stopping":
            os._exit(128 + number)
        self._stop()

    def _stop(self) -> None:
        self._service.phase = "stopping"
        for server, _ in self._listeners:
            server.should_exit = True


def _into(future: "asyncio.Future[None]", loop: asyncio.AbstractEventLoop, load: Callable[[], None]) -> None:
    """Run `load`, and tell the future, unless the loop has ended meanwhile."""
    try:
        load()
        outcome: BaseException | None = None
    except Exception as error:
        outcome = error
    if not loop.is_closed():
        tell = future.set_exception if outcome else future.set_result
        loop.call_soon_threadsafe(tell, outcome)  # type: ignore[arg-type]
