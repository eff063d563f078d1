"""A training run's work folder: checkpoints that are whole or absent, and whose settings they belong to."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...catalog.errors import DiskFullError, SpecBeamError, said
from ...catalog.files import whole_directory, whole_file
from ...catalog.records import read_json

SETTINGS, STATE = "settings.json", "state.json"
TRAINER = "trainer_state.json"  # the name that transformers reads
WEIGHTS, BEST, OPTIMIZER, RANDOM = (f"{name}.safetensors" for name in ("weights", "best", "optimizer", "random"))
EVENTS = "events"  # TensorBoard's
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds besides the best weights."""

    weights: Tensors
    optimizer: Tensors
    random: Tensors
    state: Mapping[str, Any]  # as JSON
    trainer: Mapping[str, Any]  # transformers' `TrainerState`, as JSON


@dataclass(frozen=True)
class WorkFolder:
    """The folder of one run; it outlives an interruption."""

    path: Path

    def claim(self, settings: Mapping[str, Any], *, resume: bool) -> Path | None:
        """Take the folder for a run of `settings`; returns the checkpoint to go on from, if there is one.

        Raises `SpecBeamError` where the folder belongs to a run of other settings, or to something else.
        """
        file = self.path / SETTINGS
        settings = json.loads(json.dumps(settings))
        if self.path.exists() and not file.is_file() and any(self.path.iterdir()):
            raise SpecBeamError(f"{self.path} is no training run's folder: it has no {SETTINGS}. Move it away.")
        for part in self.path.glob(".checkpoint-*"):  # of a run that was killed while it wrote
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        if not resume or not file.is_file():
            self._clear()
            with whole_file(file, replace=True) as out:
                out.write(json.dumps(settings, indent=1).encode())
            return None
        before = _read(file, self.path)
        differing = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if differing:
            shown = "; ".join(f"{name} {before.get(name)}, now {settings.get(name)}" for name in differing)
            raise SpecBeamError(
                f"{self.path} holds an interrupted training run of other settings ({shown}). Remove the folder to "
                "start anew, or repeat the earlier command to go on with it."
            )
        return self.last()

    def last(self) -> Path | None:
        """The newest checkpoint."""
        return max(self._checkpoints(), key=_step, default=None)

    def save(self, step: int, snapshot: Snapshot, *, is_best: bool) -> None:
        """Write a checkpoint, whole or not at all, then remove the earlier ones.

        `is_best`: its weights are the best so far; otherwise the best are the last checkpoint's. Raises
        `SpecBeamError` where it cannot be written; then the earlier checkpoint is still there.
        """
        before = self.last()
        try:
            with whole_directory(self.path / f"checkpoint-{step}", kind=STATE, replace=True) as part:
                for name, tensors in ((WEIGHTS, snapshot.weights), (OPTIMIZER, snapshot.optimizer)):
                    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part / name)
                save_file(dict(snapshot.random), part / RANDOM)
                best = part / WEIGHTS if is_best else before / BEST if before is not None else None
                if best is not None and best.is_file():
                    _link(best, part / BEST)
                (part / TRAINER).write_text(json.dumps(snapshot.trainer), encoding="utf-8")
                (part / STATE).write_text(json.dumps(snapshot.state), encoding="utf-8")
        except (OSError, SafetensorError, DiskFullError) as error:
            kept = f"The checkpoint of step {_step(before)} is intact" if before is not None else "There is none yet"
            raise SpecBeamError(
                f"The checkpoint of step {step} could not be written to {self.path}: {error}. {kept}. Free some space "
                "there and run the same command again to go on."
            ) from error
        for checkpoint in self._checkpoints():
            if _step(checkpoint) != step:
                shutil.rmtree(checkpoint)

    def _checkpoints(self) -> list[Path]:
        return [path for path in self.path.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)]

    def _clear(self) -> None:
        """Remove what an earlier run has left."""
        for path in (*self._checkpoints(), self.path / EVENTS):
            shutil.rmtree(path, ignore_errors=True)


def load_tensors(checkpoint: Path, name: str) -> dict[str, torch.Tensor]:
    """`WEIGHTS`, `BEST`, `OPTIMIZER` or `RANDOM` of a checkpoint. Raises `SpecBeamError` for a file that is damaged."""
    try:
        return load_file(checkpoint / name)
    except (OSError, SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise unfit(checkpoint / name, f"cannot be read: {said(error)}") from error


def load_like(checkpoint: Path, name: str, own: Tensors) -> dict[str, torch.Tensor]:
    """As `load_tensors`; also raises where names, shapes or types are not those of `own`, or a number is none."""
    loaded = load_tensors(checkpoint, name)
    check_like(checkpoint / name, loaded, own)
    return loaded


def check_like(file: Path, loaded: Tensors, own: Tensors) -> None:
    """Raise `SpecBeamError` unless tensors have the names, shapes and types of `own`, and numbers in them."""
    for key in sorted(loaded.keys() ^ own.keys()):
        raise unfit(file, f"{'lacks' if key in own else 'has a'} tensor {key!r}{'' if key in own else ' too many'}")
    for key, tensor in loaded.items():
        got, expected = ((tuple(t.shape), t.dtype) for t in (tensor, own[key]))
        if got != expected:
            raise unfit(file, f"has {key!r} of {got[0]} {got[1]}; expected {expected[0]} {expected[1]}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise unfit(file, f"has numbers in {key!r} that are none")


def check_json(file: Path, part: str, value: Any, own: Any, free: frozenset[str]) -> None:
    """Raise `SpecBeamError` unless JSON is that of `own`; under the keys `free`, numbers may be others."""
    if not _is_like(value, json.loads(json.dumps(own)), free, is_free=False):
        raise unfit(file, f"has {part} that are not of this run")


def _is_like(value: Any, own: Any, free: frozenset[str], *, is_free: bool) -> bool:
    if isinstance(own, dict):
        same = isinstance(value, dict) and value.keys() == own.keys()
        return same and all(_is_like(value[k], own[k], free, is_free=is_free or k in free) for k in own)
    if isinstance(own, list):
        same = isinstance(value, list) and len(value) == len(own)
        return same and all(_is_like(v, o, free, is_free=is_free) for v, o in zip(value, own, strict=True))
    if is_free and type(own) in (int, float):
        return type(value) in (int, type(own)) and 0 <= value < 2**53
    return type(value) is type(own) and bool(value == own)


def load_json(checkpoint: Path, name: str) -> dict[str, Any]:
    """`STATE` or `TRAINER` of a checkpoint. Raises `SpecBeamError` for a file that is damaged."""
    return _read(checkpoint / name, checkpoint.parent)


def unfit(file: Path, fault: str) -> SpecBeamError:
    """What is said of a checkpoint's file that cannot be gone on from."""
    return SpecBeamError(f"{file} {fault}. Remove {file.parent.parent} to start the run anew.")


def _read(file: Path, work: Path) -> dict[str, Any]:
    return read_json(file, dict[str, Any], f"remove {work} to start the run anew", SpecBeamError)[0]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # the same bytes twice would cost a large model's disk dearly
    except OSError:
        shutil.copyfile(source, target)
