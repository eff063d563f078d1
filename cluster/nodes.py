"""The nodes of a cluster: what every one of them must have before any work is given to it."""

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .. import __version__
from ..catalog.errors import SpecBeamError, said
from .asked import Needs

ANSWERS = 120.0  # seconds in which a node must answer


def alive() -> list[dict[str, Any]]:
    """The nodes, as Ray tells of them."""
    return [node for node in ray.nodes() if node["Alive"]]


def check_nodes(needs: Needs, files: dict[Path, str]) -> None:
    """Raise `SpecBeamError` for a node without this package in this version, or, where workers fit, without the files.

    files: SHA-256 by path.
    """

    def told(paths: list[str]) -> tuple[str, str, dict[str, str | None]]:
        """Of a node: a package that lacks, this package's version, what files hold. It crosses by value: it may be all
        there is."""
        import hashlib
        import importlib

        try:
            version = importlib.import_module("specbeam").__version__
        except ModuleNotFoundError as error:
            return str(error.name), "", {}
        found: dict[str, str | None] = {}
        for path in paths:
            try:
                with open(path, "rb") as file:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
            except OSError:
                found[path] = None
        return "", version, found

    asked = {}
    for node in alive():
        paths = [str(path) for path in files] if needs.room(node["Resources"]) else []
        place = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        asked[_named(node)] = ray.remote(told).options(num_cpus=0, scheduling_strategy=place).remote(paths)
    for name, answer in asked.items():
        try:
            lacking, version, found = ray.get(answer, timeout=ANSWERS)
        except GetTimeoutError:
            raise SpecBeamError(f"{name} does not answer within {ANSWERS:.0f} s. Take it out of the cluster.") from None
        except RayError as error:
            raise SpecBeamError(f"{name} of the cluster cannot be asked what it has: {said(error)}.") from None
        if lacking:
            raise SpecBeamError(
                f"{name} of the cluster lacks the package {lacking}: its Python does not find it. Install what runs "
                f"here on every node (specbeam {__version__}), or give the cluster an image that has it."
            )
        _compare(name, version, {Path(path): digest for path, digest in found.items()}, files)


def _compare(name: str, version: str, found: dict[Path, str | None], files: dict[Path, str]) -> None:
    if version != __version__:
        raise SpecBeamError(
            f"{name} of the cluster has specbeam {version}; expected {__version__}, as here. Install the same there."
        )
    for path, digest in found.items():
        if digest is None:
            raise SpecBeamError(
                f"{name} of the cluster has no {path}. Put a copy of its folder there, at the same path, or on a file "
                "system that all nodes share."
            )
        if digest != files[path]:
            raise SpecBeamError(
                f"{name} of the cluster has another {path} than this machine. Copy its folder from here to there."
            )


def _named(node: dict[str, Any]) -> str:
    return f"Node {node['NodeManagerAddress']} ({node['NodeManagerHostname']}, {node['NodeID'][:8]})"
