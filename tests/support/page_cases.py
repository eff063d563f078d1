"""The page over scripted engines: in this process, and at an address of its own."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette

from scripted_recommender import SPEC
from scripted_search import random_catalog
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import DraftShape, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.serve import Serving
from specbeam.serve.editions import Edition
from specbeam.serve.http import page
from specbeam.serve.http.app import create_app
from specbeam.serve.http.figures import LiveFigures
from specbeam.serve.http.logs import Log
from specbeam.serve.http.metrics import Metrics
from specbeam.serve.http.service import HttpSettings, Service
from specbeam.serve.models import Models
from specbeam.serve.observer import Observers

HOSTILE = (
    "<img src=x onerror=\"document.title='broken into'\">",
    "</script><script>document.title='broken into'</script>",
    "&lt;b&gt;Shampoo &amp; Conditioner&lt;/b&gt;",
    "\u202egnihtemos' OR 1=1;\x07 --",
    "x" * 500,
)
TITLES = ("Lip Balm, Cherry", "Cherry lip gloss", "BALM for Lips", "Nail file", "Straße", *HOSTILE, None)
ROWS = random_catalog(np.random.default_rng(5), 60, 3, 9)


def shop(titles: tuple[str | None, ...] = TITLES, max_k: int = 60) -> Recommender:
    """60 items "i0" to "i59", of which the first ones have titles."""
    identifiers = tuple(tuple(f"<{token}>" for token in row) for row in ROWS.tolist())
    ids = tuple(f"i{i}" for i in range(len(ROWS)))
    catalog = Catalog(ids, identifiers, (titles + (None,) * len(ids))[: len(ids)])
    trie = ItemTrie.build(ROWS)
    target, draft = (ScriptedEngine(len(trie.vocabulary), seed=1, disagreement=d) for d in (0.0, 0.4))
    loaded = Loaded(catalog, trie, PromptEncoder(SPEC, trie.item_tokens(), 10_000), target, draft, None, max_k)
    return Recommender(loaded, planning=FixedPlanning(DraftShape(40, 2)), batching=8)


@dataclass(frozen=True)
class Page:
    """A service with the page."""

    app: Starlette
    service: Service
    figures: LiveFigures


@contextmanager
def paged(*recommenders: Recommender, **settings: Any) -> Iterator[Page]:
    """Models "shop", "shop1", ...: of a version "7" with a catalog "9"."""
    metrics, figures = Metrics(), LiveFigures()
    service = Service(
        HttpSettings(**settings), Models(Serving(), Observers(metrics, figures)), metrics, Log(io.StringIO())
    )
    for number, recommender in enumerate(recommenders or (shop(),)):
        service.models.add(Edition(f"shop{number or ''}", "7", "9", recommender))
    service.phase = "ready"
    try:
        yield Page(create_app(service, page.routes(service, figures), page.OPEN_PATHS), service, figures)
    finally:
        service.models.close(drain=False, timeout=60)


@contextmanager
def at_address(app: Starlette) -> Iterator[str]:
    """Serve an application by a real server, at an address that is returned."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=5))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
