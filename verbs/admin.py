"""What asks a running server's admin interface: over the socket's file, or the port that is its own."""

import sys
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import AF_UNIX, socket
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from ..catalog.errors import SpecBeamError

if TYPE_CHECKING:
    from ..serve.http.admin_messages import Status

T = TypeVar("T")
ADMIN_HELP = "Where the server's admin interface is: its socket's path, or http://127.0.0.1:PORT."

admin_option = click.option("--admin", required=True, envvar="SPECBEAM_ADMIN", metavar="SOCKET|URL", help=ADMIN_HELP)
json_option = click.option("--json", "as_json", is_flag=True, help="The server's answer as JSON.")


class Refused(SpecBeamError):
    """The server has changed nothing; `items`: that have tokens its model does not know, with these."""

    def __init__(self, message: str, items: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        super().__init__(message)
        self.items = items


class Admin:
    """A client."""

    def __init__(self, where: str) -> None:
        self._where = where

    def get(self, path: str, kind: type[T]) -> T:
        """What the server tells. Raises `SpecBeamError` where none listens."""
        return self._asked("GET", path, None, kind)

    def post(self, path: str, content: msgspec.Struct, kind: type[T]) -> T:
        """Have something changed. Raises `Refused` with the server's reason, and as `get`."""
        body = msgspec.json.encode(content)
        return _waited(lambda: self._asked("POST", path, body, kind), f"waiting for {self._where}")

    def _asked(self, method: str, path: str, body: bytes | None, kind: type[T]) -> T:
        from ..serve.http.admin_messages import Refusal

        connection = _connection(self._where)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
        except (OSError, HTTPException) as error:
            raise SpecBeamError(
                f"no admin interface answers at {self._where}: {error or type(error).__name__}. Is the server running? "
                "It is started with: specbeam serve BUNDLE --admin SOCKET"
            ) from None
        finally:
            connection.close()
        try:
            if answer.status == 200:
                return msgspec.json.decode(told, type=kind)
            refusal = msgspec.json.decode(told, type=Refusal)
        except msgspec.MsgspecError:
            raise SpecBeamError(
                f"{self._where} answers with status {answer.status} and no word that is known; expected the admin "
                "interface of a server of this version. See the server's log."
            ) from None
        raise Refused(refusal.error, refusal.items)


class _OverFile(HTTPConnection):
    """A connection over a socket's file."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket(AF_UNIX)
        self.sock.connect(str(self._path))


def _connection(where: str) -> HTTPConnection:
    from ..serve.http.admin_socket import host_and_port

    return HTTPConnection(*host_and_port(where)) if "://" in where else _OverFile(Path(where))


def _waited(call: Callable[[], T], what: str) -> T:
    """What a call returns; on a terminal, the seconds until then are shown."""
    from tqdm import tqdm

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    with tqdm(desc=what, bar_format="{desc}: {elapsed}", delay=1, leave=False, file=sys.stderr, disable=None) as bar:
        while True:
            try:
                return future.result(timeout=0.2)
            except TimeoutError:
                if future.done():
                    raise
                bar.update()


def change(admin: str, path: str, content: msgspec.Struct, as_json: bool) -> None:
    """Have something changed, and say what there is then."""
    from ..serve.http.admin_messages import Changed

    now = Admin(admin).post(path, content, Changed)
    text = f"{now.model}: version {now.version} has catalog {now.catalog} ({now.items:,} items)"
    click.echo(msgspec.json.encode(now).decode() if as_json else text)


def tell_status(admin: str, as_json: bool) -> None:
    """Say what is loaded."""
    from ..serve.http.admin_messages import Status

    tell(Admin(admin).get("/models", Status), as_json)


def tell(status: "Status", as_json: bool) -> None:
    """A line for each version that is loaded."""
    if as_json:
        click.echo(msgspec.json.encode(status).decode())
        return
    for one in status.models:
        mark, kept = "*" if one.current else " ", f"; kept: {', '.join(one.kept)}" if one.kept else ""
        click.echo(
            f"{mark} {one.model} version {one.version}: {one.bundle or 'no bundle'} on {one.device}, catalog "
            f"{one.catalog} of {one.items:,} items{kept}"
        )
    if not status.models:
        click.echo("no model is loaded")
