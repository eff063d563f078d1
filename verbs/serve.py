"""Requests over HTTP: serve."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    PathType,
    batch_option,
    drafter_options,
    engine_option,
    memory_option,
    scoring_option,
    shape_options,
    speculation_option,
    threads_option,
    together,
    verify_option,
)
from .values import batching_value, collected, drafting_value, engine_value, verification_value

if TYPE_CHECKING:
    from ..runtime import Batching, Drafting, EngineChoice, Verification
    from ..serve import Serving
    from ..serve.http.limits import Limits
    from ..serve.http.service import HttpSettings

POLICY_HELP = (
    "gathered: a batch runs to its end, and what comes meanwhile waits. in-flight: in every round, requests that are "
    "done leave and waiting ones join. Default: gathered."
)
TOKEN_HELP = "File with a token that clients must send (Authorization: Bearer TOKEN), but for health checks."
UNKNOWN_HELP = "Items of histories that the catalog lacks: leave them out and count them, or refuse the request."
ADMIN_HELP = (
    "Where catalogs and models are changed while they are served (specbeam catalog, specbeam model): a socket's path, "
    "or http://127.0.0.1:PORT. Default: nowhere."
)
TIMEOUT_HELP = "Until a request is answered; after that it is refused. A request may ask for less."
READ_HELP = "Until a request's head, and then its body, are here; and until an answer is taken."
Positive = click.IntRange(1)

address_options = together(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."),
)
serving_options = together(
    click.option("--policy", type=click.Choice(["gathered", "in-flight"]), help=POLICY_HELP),
    click.option(
        "--wait-ms", type=click.FloatRange(0), help="gathered: how long a batch waits to be full. Default: 0."
    ),
    click.option("--queue", type=Positive, help="Requests that wait, at most; more are refused. Default: 256."),
)
opening_options = together(  # what a model is opened and served with, whatever carries its requests
    engine_option, threads_option, batch_option, memory_option, serving_options, verify_option, scoring_option,
    drafter_options, speculation_option, shape_options,
)  # fmt: skip
request_limit_options = together(
    click.option("--max-items", type=Positive, help="Of a history. Default: 1000."),
    click.option("--max-k", type=Positive, help="The longest list. Default: the longest that the bundle serves."),
    click.option("--max-entries", type=Positive, help="Histories in one request. Default: 64."),
    click.option("--timeout-ms", type=Positive, help=f"{TIMEOUT_HELP} Default: 10000."),
)
limit_options = together(
    request_limit_options,
    click.option("--max-body", type=Positive, metavar="BYTES", help="Of a request. Default: 1048576."),
    click.option("--max-requests", type=Positive, help="HTTP requests at once. Default: 1024."),
    click.option("--read-ms", type=Positive, help=f"{READ_HELP} Default: 10000."),
)
unknown_items_option = click.option(
    "--unknown-items", type=click.Choice(["drop", "reject"]), default="drop", show_default=True, help=UNKNOWN_HELP
)


def _serving(policy: str | None, wait_ms: float | None, queue: int | None, batching: "Batching") -> "Serving":
    from ..serve import Serving
    from .options import given

    told = given({"policy": policy, "wait_ms": wait_ms, "queue": queue})
    return Serving(**told, size=batching.size, memory=batching.memory)


def _limits(
    max_body: int | None, max_items: int | None, max_k: int | None, max_entries: int | None, max_requests: int | None,
    timeout_ms: int | None, read_ms: int | None,
) -> "Limits":  # fmt: skip
    from ..serve.http.limits import Limits
    from .options import given

    told = {"body": max_body, "items": max_items, "k": max_k, "entries": max_entries, "concurrency": max_requests}
    return Limits(**given(told | {"timeout_ms": timeout_ms, "read_ms": read_ms}))


def _settings(limits: "Limits", unknown_items: str, token_file: Path | None) -> "HttpSettings":
    from ..serve.http.service import HttpSettings
    from ..serve.http.token_file import read_token

    return HttpSettings(limits, unknown_items, None if token_file is None else read_token(token_file))  # type: ignore[arg-type]


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="[NAME=]BUNDLE...")
@address_options
@opening_options
@limit_options
@click.option("--token-file", type=PathType, help=TOKEN_HELP)
@click.option("--admin", metavar="SOCKET|URL", help=ADMIN_HELP)
@unknown_items_option
@batching_value
@collected("limits", _limits)
@collected("serving", _serving)
@collected("settings", _settings)
@drafting_value
@verification_value
@engine_value
def serve(
    bundles: tuple[str, ...], host: str, port: int, engine: "EngineChoice", drafting: "Drafting",
    verification: "Verification", serving: "Serving", settings: "HttpSettings", admin: str | None,
) -> None:  # fmt: skip
    """Serve the models of bundles over HTTP.

    POST /v1/recommend takes a request as a line of a history file has it, or a list of them, and ?model=NAME where
    several bundles are served (default: the first); NAME is the bundle's folder unless it is given. The Open Inference
    Protocol v2 is under /v2, Prometheus' metrics are at /metrics, the OpenAPI document at /openapi.json, and a page to
    try it all on at /.

    The log, a line of JSON for each event and request, goes to standard error: the address comes first, and "ready"
    once the models are loaded and warm. Until then /v2/health/ready and all requests are answered with 503. SIGTERM and
    Ctrl-C end the server once all that it has accepted is answered; a second one ends it at once.

    \b
    Examples:
      specbeam serve bundle
      specbeam serve shop=bundle books=other-bundle --port 8080 --batch-size 16
      specbeam serve bundle --host 0.0.0.0 --token-file token.txt --unknown-items reject
      specbeam serve shop=bundle --admin admin.sock
    """
    from ..serve.http import page
    from ..serve.http.admin import admin_app
    from ..serve.http.admin_socket import admin_listener
    from ..serve.http.app import create_app
    from ..serve.http.connections import listening, server
    from ..serve.http.figures import LiveFigures
    from ..serve.http.lifecycle import Lifecycle
    from ..serve.http.loading import load, named_bundles
    from ..serve.http.metrics import Metrics
    from ..serve.http.service import Service
    from ..serve.models import Models
    from ..serve.observer import Observers
    from ..serve.opening import Opening

    opened, limits = named_bundles(bundles), settings.limits
    opening = Opening(engine, drafting, verification, serving.batching)
    metrics, figures = Metrics(), LiveFigures()
    models = Models(serving, Observers(metrics, figures), opening)
    service = Service(settings, models, metrics)
    app = create_app(service, page.routes(service, figures), page.OPEN_PATHS)
    listeners = [(server(app, limits), listening(host, port, limits))]
    with ExitStack() as stack:
        if admin is not None:
            listeners.append((server(admin_app(models), limits), stack.enter_context(admin_listener(admin))))
        Lifecycle(service, listeners).run(lambda: load(opened, opening, models, service.log))
