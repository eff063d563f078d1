"""The ASGI application: routes, and what stands before them."""

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from . import openapi, v1, v2
from .front import Front
from .metrics import CONTENT_TYPE
from .refusals import refusal, response
from .service import Service


def create_app(service: Service, extra_routes: Sequence[BaseRoute] = (), open_paths: Collection[str] = ()) -> Starlette:
    """The application of a service. open_paths: of the extra routes, those that need no token."""

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    app = Starlette(
        routes=[*v1.routes(service), *v2.routes(service), *openapi.routes(), Route("/metrics", metrics), *extra_routes],
        exception_handlers={HTTPException: _refuse},
        middleware=[Middleware(Front, service, frozenset(open_paths))],
    )
    app.router.redirect_slashes = False
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """The router's own refusals; all other errors are answered by `Front`, in the same way."""
    return response(refusal(error), request.url.path, request.scope["request_id"])
