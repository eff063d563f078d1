"""Where the admin interface listens: a socket file that only its owner may use, or a port of this host alone."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...catalog.errors import OptionError

LOCAL = ("127.0.0.1", "::1", "localhost")


def admin_socket(where: str) -> socket.socket:
    """A socket that listens: at a path, for the owner only (mode 0600), or at `http://127.0.0.1:PORT`.

    Raises `OptionError` for an address of other hosts, and where something else is in its place.
    """
    if "://" in where:
        host, port = host_and_port(where)
        if host not in LOCAL:
            raise OptionError(f"the admin interface is for this host alone; got {host}. Take a path, or 127.0.0.1.")
        return _bound(where, socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))
    path = Path(where)
    _clear(path)
    before = os.umask(0o177)  # the process's own: only while it starts
    try:
        return _bound(where, socket.AF_UNIX, str(path))
    finally:
        os.umask(before)


@contextmanager
def admin_listener(where: str) -> Iterator[socket.socket]:
    """As `admin_socket`, for a block, behind which its file is gone."""
    bound = admin_socket(where)
    name = bound.getsockname()  # which a socket that is closed no longer tells
    try:
        yield bound
    finally:
        bound.close()
        if isinstance(name, str):
            Path(name).unlink(missing_ok=True)


def host_and_port(where: str) -> tuple[str, int]:
    """Of `http://HOST:PORT`. Raises `OptionError` for another address."""
    scheme, _, rest = where.partition("://")
    host, _, port = rest.rstrip("/").rpartition(":")
    if scheme != "http" or not host or not port.isdecimal() or int(port) > 65535:
        raise OptionError(f"got the admin interface at {where}; expected a socket's path, or http://127.0.0.1:PORT.")
    return host.strip("[]"), int(port)


def _clear(path: Path) -> None:
    """Remove what a server that was killed has left."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OptionError(f"{path} is no socket, and stays. Name another place for the admin socket.")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise OptionError(f"{path}: another server listens there. Name another place for the admin socket.")


def _bound(where: str, family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        raise OptionError(f"the admin interface cannot listen at {where}: {error}. Name another place.") from None
    return bound
