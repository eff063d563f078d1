"""What all bundles are, of items and of texts: models, their engines, and files that are checked when first used."""

import hashlib
import shlex
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...catalog.bounds import DAMAGED, leads_out
from ...catalog.errors import BundleError
from .checksums import check_file
from .export_command import export_command
from .facts import (
    ENCODER,
    ENGINE_FACTS,
    ENGINE_SCHEMA,
    QUANTIZED,
    USUAL_TARGETS,
    EngineFacts,
    FileFacts,
    ModelFacts,
    Precision,
    Role,
    RoleFacts,
    Scoring,
)
from .measured import with_measurement
from .names import EngineName
from .sealed import read_sealed

MANIFEST = "manifest.json"


class Sample(NamedTuple):
    """A prompt as requests have it, and what may follow."""

    what: str  # in words
    prompt: NDArray[np.int64]  # [P] token ids
    following: NDArray[np.int64]  # [n] each of them may be the next token


class ModelManifest(Protocol):
    """What the manifests of all bundles say."""

    @property
    def checksum(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def opset(self) -> int: ...
    @property
    def target(self) -> ModelFacts: ...
    @property
    def draft(self) -> ModelFacts | None: ...
    @property
    def scoring(self) -> Scoring: ...
    @property
    def files(self) -> dict[str, FileFacts]: ...
    @property
    def tree_path(self) -> int:
        """L: the most slots that a token names besides its prompt's (`ForwardInputs.visible_slots`)."""

    @property
    def columns(self) -> int:
        """C: the width of a row of log-probabilities."""


class ModelBundle(ABC):
    """What all bundles have: models and their engines. Every file is checked against its hash when first asked for."""

    manifest: ModelManifest

    def __init__(self, path: Path, manifest: ModelManifest) -> None:
        self.path, self.manifest = path, manifest

    @abstractmethod
    def vocabulary(self) -> NDArray[np.int64]:
        """[C] the token id of every column of log-probabilities."""

    @abstractmethod
    def samples(self) -> list[Sample]:
        """A few prompts, the same ones always, to compare engines on."""

    def file(self, name: str) -> Path:
        """A file of the bundle, once its bytes are what the manifest says."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no file {name}; it has: {', '.join(sorted(self.manifest.files))}.")
        check_file(self.path / name, self.manifest.files[name], self.reexport, self.path)
        return self.path / name

    def folder(self, name: str) -> Path:
        """A folder of the bundle, once all of its files are what the manifest says."""
        inside = [file for file in self.manifest.files if file.startswith(f"{name}/")]
        if not inside:
            raise BundleError(f"{self.path} has no {name}: it was left out at export. Export it again with it.")
        for file in inside:
            self.file(file)
        return self.path / name

    def facts(self, role: Role) -> ModelFacts:
        """The exported model's facts; raises `BundleError` for the draft of a bundle without one."""
        facts = self.manifest.target if role == "target" else self.manifest.draft
        if facts is None:
            raise BundleError(
                f"{self.path} has no draft model. Leave it out (--drafter none; with a pool, retrieval), or export it "
                "with --draft DIR."
            )
        return facts

    def graph(self, role: Role) -> Path:
        """The exported ONNX graph, its weights checked with it."""
        self.facts(role)
        for name in self._graph_files(role):
            self.file(name)
        return self.file(f"{role}/model.onnx")

    def encoder(self, role: Role) -> Path:
        """The exported graph that reads an encoder-decoder's prompts, its weights checked with it."""
        return self.graph(role).with_name(ENCODER)

    def engine_names(self) -> list[str]:
        """Engines built into the bundle (one whose building was killed has a name that begins with a dot)."""
        return sorted(path.parent.name for path in self.path.glob(f"engines/[!.]*/{ENGINE_FACTS}"))

    def engine_facts(self, name: str) -> EngineFacts:
        """What an engine is, with what was measured of it on this machine where it was built without a GPU.

        Raises `BundleError` where it is absent or damaged.
        """
        facts = self.built_facts(name)
        folder = self.path / "engines" / name
        return facts if facts.measured else with_measurement(folder, facts, self.finishing(name))

    def built_facts(self, name: str) -> EngineFacts:
        """What engine.json says; raises `BundleError` as `engine_facts` does."""
        file = self.path / "engines" / name / ENGINE_FACTS
        if Path(name).name != name or leads_out(file, self.path) or not file.is_file():
            built = ", ".join(self.engine_names()) or "none"
            raise BundleError(
                f"{self.path} has no engine {name!r} (built: {built}). Build one with: "
                f"specbeam build-engine {self.path}"
            )
        return read_sealed(file, EngineFacts, self.rebuild(name), ENGINE_SCHEMA)

    def is_measured(self, name: str) -> bool:
        """Whether it is known how long an engine's calls take here: of torch it never is, of one that was built where
        it cannot run only once it was finished on this machine (`engines.finish`)."""
        if EngineName.of(name).backend == "torch":
            return False
        return all(role.latency for role in self.engine_facts(name).roles.values())

    def measuring(self, name: str) -> str:
        """What to do about an engine that is not measured."""
        if EngineName.of(name).backend == "torch":
            return "Use --speculation fixed, or an engine made by build-engine."
        return f"Measure it on this machine, or use --speculation fixed. Run: {self.finishing(name)}"

    def finishing(self, name: str) -> str:
        """The command that compares and times an engine that was built where it cannot run."""
        return f"specbeam build-engine {shlex.quote(str(self.path))} --finish {name}"

    def engine_folder(self, name: str, role: Role) -> Path:
        """The folder of an engine's graph, once its files are what engine.json says."""
        folder = self.path / "engines" / name
        engine = self.built_facts(name)
        files = {file: facts for file, facts in engine.files.items() if file.startswith(f"{role}/")}
        again = self.rebuild(name, engine)
        if not files:
            raise BundleError(f"{folder} has no file of the {role}. Write it again with: {again}")
        for file, facts in files.items():
            check_file(folder / file, facts, again, self.path)
        return folder / role

    def reexport(self) -> str:
        """The command that writes the bundle again; what only its owner has is in capitals."""
        return export_command(self.path / MANIFEST)

    def build(self, name: str) -> str:
        """The command that builds an engine of this name, the data that it takes left out."""
        backend, device, precision, draft = EngineName.of(name)
        parts = [f"specbeam build-engine {shlex.quote(str(self.path))} --backend {backend} --device {device}"]
        if precision not in ("", self.manifest.precision):
            parts.append(f"--precision {precision}")
        if draft:
            parts.append(f"--draft-precision {draft}")
        return " ".join(parts)

    def rebuild(self, name: str, facts: EngineFacts | None = None) -> str:
        """The command that replaces an engine; with its facts, by one like it."""
        parts = [self.build(name)]
        if set(QUANTIZED) & set(EngineName.of(name)):
            parts.append("--calibration HISTORIES")
        parts += _plan_options(facts.roles.get("target")) if facts is not None else []
        return " ".join([*parts, "--overwrite"])

    def graph_sha256(self, role: Role) -> str:
        """One hash for an exported graph and its weights, from those in the manifest: what an engine was built from."""
        parts = [f"{name} {facts.sha256}\n" for name, facts in sorted(self._graph_files(role).items())]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def _graph_files(self, role: Role) -> dict[str, FileFacts]:
        files = self.manifest.files.items()
        return {n: f for n, f in files if n.startswith(f"{role}/") and not n.startswith(f"{role}/checkpoint/")}


class _Kind(msgspec.Struct):
    kind: str = "items"  # what manifests of text bundles say of themselves, and others do not


def bundle_kind(path: Path) -> str:
    """ "items" or "text". Raises `BundleError` where there is no bundle; what else is wrong its reader says."""
    if not (path / MANIFEST).is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}. Make one with: specbeam export --help")
    try:
        return msgspec.json.decode((path / MANIFEST).read_bytes(), type=_Kind).kind
    except DAMAGED:
        return "items"


def _plan_options(role: RoleFacts | None) -> list[str]:
    """What a plan was built for, and with."""
    if role is None or role.tensorrt is None:
        return []
    plan = role.tensorrt
    flags = {"--version-compatible": plan.version_compatible, "--hardware-compatible": plan.hardware_compatible}
    limits = plan.limits
    sizes = f"--max-batch {limits.max_batch} --max-prompt {limits.max_prompt} --max-nodes {limits.max_nodes}"
    chosen = plan.compiled_for not in ((), USUAL_TARGETS)
    targets = [f"--compute-capability {','.join(plan.compiled_for)}"] * chosen
    return [sizes, *(flag for flag, given in flags.items() if given), *targets]
