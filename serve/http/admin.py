"""The admin interface: catalogs and models while they are served. It has a listener of its own, and no other routes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...catalog.errors import SpecBeamError
from ...catalog.spelling import UnknownTokens
from ..models import Models, UnknownModel
from .admin_messages import Changed, Load, Refusal, Status, Switch, Unload, Update, Which

MOST_BYTES = 512 << 20  # of a body: a whole catalog of some million items
HOSTS = ("localhost", "127.0.0.1", "::1")  # as which it is reached


Body = TypeVar("Body", bound=msgspec.Struct)
Handler = Callable[[Request], Awaitable[Response]]


def admin_app(models: Models) -> Starlette:
    """The application. Whoever reaches its socket may change what is served, and read bundles of this host."""
    return Starlette(
        routes=[
            Route("/models", _got(lambda: Status(models.status()))),
            _posted("/models/load", Load, lambda to: Changed.of(models.load(to.model, to.bundle, engine=to.engine))),
            _posted("/models/switch", Switch, lambda to: Changed.of(models.switch(to.model, to.version))),
            _posted("/models/unload", Unload, lambda to: _unloaded(models, to)),
            _posted(
                "/catalog/update", Update,
                lambda to: Changed.of(models.catalogs(to.model, to.version).update(to.update)),
            ),
            _posted(
                "/catalog/rollback", Which, lambda to: Changed.of(models.catalogs(to.model, to.version).rollback())
            ),
        ]
    )  # fmt: skip


def _unloaded(models: Models, to: Unload) -> Status:
    models.unload(to.model, to.version)
    return Status(models.status())


def _got(act: Callable[[], msgspec.Struct]) -> Handler:
    async def handler(request: Request) -> Response:
        return _strange(request) or _answer(act())

    return handler


def _posted(path: str, kind: type[Body], act: Callable[[Body], msgspec.Struct]) -> Route:
    """A route on which something is done beside serving, in a thread: it may take minutes."""

    def done(body: bytearray) -> Response:
        try:
            return _answer(act(msgspec.json.decode(body, type=kind)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _refusal(400, f"the body cannot be used: {error}.")
        except UnknownTokens as error:
            return _refusal(400, str(error), error.items)
        except UnknownModel as error:
            return _refusal(404, str(error))
        except (SpecBeamError, OSError) as error:
            return _refusal(400, str(error))

    async def handler(request: Request) -> Response:
        if (refusal := _strange(request)) is not None:
            return refusal
        if request.headers.get("content-type") != "application/json":  # browsers ask first before they send this
            return _refusal(415, "expected a body of the type application/json.")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return _refusal(413, f"the body has more than {MOST_BYTES >> 20} MiB.")
        return await asyncio.to_thread(done, body)

    return Route(path, handler, methods=["POST"])


def _strange(request: Request) -> Response | None:
    """A refusal for what a web page has sent, be it under another name of this host."""
    if "origin" in request.headers or request.url.hostname not in HOSTS:
        return _refusal(403, f"expected a request of no web page, to one of: {', '.join(HOSTS)}.")
    return None


def _answer(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _refusal(status: int, error: str, items: tuple[tuple[str, tuple[str, ...]], ...] = ()) -> Response:
    return _answer(Refusal(error, items), status)
