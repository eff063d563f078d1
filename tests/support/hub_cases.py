"""A small hub: models by name over HTTP, as huggingface_hub asks for them; and its cache, prepared without one."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

TOKEN = "hf_of_the_tests"


def commit_of(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


@dataclass(frozen=True)
class Model:
    """One repository: a folder, whose content is all there is at each of its revisions."""

    folder: Path
    revisions: tuple[str, ...] = ("main",)
    private: bool = False  # nobody sees that it is there
    gated: bool = False  # its files are for those who asked

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(found)}


@dataclass
class Hub:
    """What is served, and what was asked for."""

    models: dict[str, Model] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # "GET path"
    status: int = 0  # what every request is answered with, if not 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def downloaded(self, name: str) -> list[str]:
        """Files of a model whose content was sent."""
        start = f"GET /{name}/resolve/"
        return sorted(line.removeprefix(start).partition("/")[2] for line in self.asked if line.startswith(start))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.status:
            return self._send(self.hub.status, b"{}")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        at = next((i for i, part in enumerate(parts) if part in ("revision", "tree", "resolve")), None)
        if at is None:  # another question of the library's
            return self._send(404, b"{}")
        name, kind, revision, file = "/".join(parts[:at]), parts[at], parts[at + 1], "/".join(parts[at + 2 :])
        model = self.hub.models.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if model is None or (model.private and not known):
            return self._send(401, b"{}", **{"X-Error-Code": "RepoNotFound"})
        commits = {each: commit_of(f"{name}@{each}") for each in model.revisions}
        commit = commits.get(revision, revision)
        if commit not in commits.values():
            return self._send(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        if model.gated and not known and kind == "resolve":
            return self._send(403, b"{}", **{"X-Error-Code": "GatedRepo"})
        return self._answer(name, kind, commit, file, model.files())

    def _answer(self, name: str, kind: str, commit: str, file: str, files: dict[str, bytes]) -> None:
        if kind == "revision":
            siblings = [{"rfilename": each} for each in files]
            return self._json({"id": name, "sha": commit, "siblings": siblings})
        if kind == "tree":
            return self._json([
                {"type": "file", "path": each, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for each, content in files.items()
            ])  # fmt: skip
        if file not in files:
            return self._send(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        tag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
        return self._send(200, files[file], **{"X-Repo-Commit": commit, "ETag": tag})

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is told."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a port of its own."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) as server:
        server.daemon_threads = True
        hub.port = server.server_port
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def use_cache(patch: pytest.MonkeyPatch, cache: Path, *, url: str | None = None) -> None:
    """Let huggingface_hub use the cache, and ask `url` or (None) nobody; its settings are read when it is imported."""
    from huggingface_hub import constants

    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", url is None)
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache.with_name("token")))
    patch.delenv("HF_TOKEN", raising=False)
    if url is not None:
        patch.setattr(constants, "ENDPOINT", url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def cached(cache: Path, name: str, folder: Path, revision: str = "main") -> str:
    """Put a folder's files into a cache as a model at a revision; returns its commit."""
    repository, commit = cache / f"models--{name.replace('/', '--')}", commit_of(f"{name}@{revision}")
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    return commit
