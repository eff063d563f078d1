"""The page at `/`, and what it asks for: items by title, live figures, pictures of how a list came about."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final, final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..editions import Edition
from ..protocol.asking import Asked, decoded
from ..protocol.refusals import Refused
from .figures import LiveFigures, told
from .limits import read_body
from .pictures import Pictures
from .service import Service
from .titles import TitlesOf

SCRIPTS: Final = ("page.js", "api.js", "elements.js", "figures.js", "history.js")
FILES: Final = {"/": "index.html"} | {f"/{name}": name for name in ("page.css", "icon.svg", *SCRIPTS)}
KINDS: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
OPEN_PATHS: Final = tuple(FILES)  # served without a token: what they hold is in every copy of this package
FOUND, MOST_FOUND = 10, 50  # items of a search, where nobody says how many, and at most
LONGEST_QUERY = 200  # letters
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Found(msgspec.Struct, frozen=True):
    """An item that a search found."""

    item: str
    title: str | None


class Items(msgspec.Struct, frozen=True):
    """What a search found, and in which catalog."""

    items: tuple[Found, ...]
    model: str
    catalog_version: str


def routes(service: Service, figures: LiveFigures) -> list[Route]:
    """The page and its endpoints. figures: one of the observers of the service's models."""
    asked = _Asked(service, figures)
    return [
        *(Route(path, _file(name), methods=["GET"]) for path, name in FILES.items()),
        Route("/v1/items", asked.items, methods=["GET"]),
        Route("/v1/figures", asked.figures, methods=["GET"]),
        Route("/v1/explain", asked.explain, methods=["POST"]),
    ]


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files(__package__) / "page" / name).read_bytes()
    kind = KINDS[name.rpartition(".")[2]]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return answer


@final
class _Asked:
    """What the page asks for."""

    def __init__(self, service: Service, figures: LiveFigures) -> None:
        self._service, self._figures = service, figures
        self._titles, self._pictures = TitlesOf(), Pictures()

    async def items(self, request: Request) -> Response:
        """Items with every word of a query in their title or id."""
        query, most, edition = _query(request), _limit(request), self._edition(request)
        rows = await run_in_threadpool(lambda: self._titles(edition).search(query, most))
        catalog = edition.recommender.catalog
        found = tuple(Found(catalog.item_ids[row], catalog.titles[row]) for row in rows)
        return _json(Items(found, edition.model, edition.catalog))

    async def figures(self, request: Request) -> Response:
        """The last minute, the queue, and the models."""
        return _json(told(self._service.models, self._figures))

    async def explain(self, request: Request) -> Response:
        """A history line in, an SVG out."""
        edition = self._edition(request)
        asked = decoded(await read_body(request, self._service.settings.limits), Asked)
        picture = await run_in_threadpool(self._pictures.draw, edition, asked)
        return Response(picture, media_type="image/svg+xml", headers=HEADERS)

    def _edition(self, request: Request) -> Edition:
        self._service.check_ready()
        edition = self._service.models.named(request.query_params.get("model")).edition
        request.scope["model"] = edition.model
        return edition


def _query(request: Request) -> str:
    query = request.query_params.get("query", "")
    if len(query) > LONGEST_QUERY:
        raise Refused(400, f"got {len(query)} letters; expected at most {LONGEST_QUERY}.", field="query")
    return query


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(FOUND))
    if not (given.isascii() and given.isdecimal() and len(given) <= 3 and 1 <= int(given) <= MOST_FOUND):
        raise Refused(400, f"got {given[:20]!r}; expected 1 to {MOST_FOUND} items.", field="limit")
    return int(given)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json", headers=HEADERS)
