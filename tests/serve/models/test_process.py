"""The real server, its catalog swapped and its model switched by the real verbs while clients ask it."""

import json
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from commands import good, same_items
from http_process import Running, serving
from specbeam.catalog.updates import CatalogUpdate, Entry
from specbeam.runtime import Recommendation, Recommender
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
CALLERS, K = 6, 8
HISTORIES = [["1"], ["2", "1"], ["5", "3", "1"]]  # of items that are always there
Answers = list[tuple[list[str], int, Any]]


class Clients:
    """Clients that ask one thing after another until they are told to stop."""

    def __init__(self, server: Running) -> None:
        self._server, self._stop = server, Event()
        self.answers: Answers = []
        self._threads = [Thread(target=self._ask, args=(number,)) for number in range(CALLERS)]

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            history = HISTORIES[number % len(HISTORIES)]
            self.answers.append((history, *self._server.ask({"items": history, "k": K})))

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def shown(recommendation: Recommendation) -> list[dict[str, Any]]:
    return [
        {"item": one.item, "title": one.title, "identifier": list(one.identifier), "score": one.score}
        for one in recommendation.items
    ]


def test_catalogs_and_models_change_while_clients_ask(tiny: Tiny, tmp_path: Path) -> None:
    retire, add = tmp_path / "retire.txt", tmp_path / "add.jsonl"
    changing = [str(i) for i in range(20, 30)]
    retire.write_text("\n".join(changing))
    index = json.loads(tiny.index.read_text())
    added = [Entry(item=item, identifier=tuple(index[item]), title=f"again {item}") for item in changing]
    add.write_text("\n".join(json.dumps({"item": e.item, "identifier": e.identifier, "title": e.title}) for e in added))
    whole = Recommender.open(tiny.bundle)
    fewer = whole.with_catalog(CatalogUpdate(retire=tuple(changing)).of(whole.catalog))
    again = fewer.with_catalog(CatalogUpdate(add=tuple(added)).of(fewer.catalog))
    by = {("1", "1"): whole, ("2", "1"): whole}
    admin = tmp_path / "admin.sock"
    with serving(tmp_path, f"shop={tiny.bundle}", "--admin", admin, "--threads", 1) as server:
        good("model", "load", "shop", tiny.bundle, "--admin", admin)
        with Clients(server) as clients:
            for number in range(10):
                change = ("--retire", retire) if number % 2 == 0 else ("--add", add)
                told = good("catalog", "update", *change, "--version", 1, "--admin", admin, "--json").stdout
                by["1", json.loads(told)["catalog"]] = fewer if number % 2 == 0 else again
                good("model", "switch", "shop", 2 - number % 2, "--admin", admin)
            good("catalog", "rollback", "--version", 1, "--admin", admin)
            seen = len(clients.answers)
            while len(clients.answers) < seen + 20:
                good("model", "status", "--admin", admin)
        for path in ("/models", "/models/load", "/catalog/update", "/catalog/rollback"):
            assert {server.ask(None, path, "GET")[0], server.ask({}, path)[0]} <= {404, 405}
        assert admin.stat().st_mode & 0o777 == 0o600
        assert server.end() == 0
    assert not admin.exists()
    assert {status for _, status, _ in clients.answers} == {200}
    lists = {
        (key, tuple(history)): shown(recommender.recommend([history], K)[0])
        for key, recommender in by.items() for history in HISTORIES
    }  # fmt: skip
    for history, _, answer in clients.answers:
        expected = lists[(answer["model_version"], answer["catalog_version"]), tuple(history)]
        assert same_items(answer["items"], expected)
    assert len({(answer["model_version"], answer["catalog_version"]) for _, _, answer in clients.answers}) > 3
