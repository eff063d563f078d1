"""The bundle on disk: what export writes, build-engine extends and the runtime opens."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ..catalog.errors import BundleError
from ..catalog.files import sha256
from ..catalog.items import Catalog
from ..catalog.prompt import PromptEncoder, PromptSpec
from ..catalog.prompt_options import PromptOptions
from ..catalog.trie import PAD, ItemTrie
from .facts import (
    ENGINE_FACTS,
    ENGINE_SCHEMA,
    EngineFacts,
    EnginePrecision,
    FileFacts,
    ModelFacts,
    Precision,
    Role,
    RoleFacts,
)
from .sealed import Sealed, read_sealed

if TYPE_CHECKING:
    from .text_bundle import TextManifest

MANIFEST = "manifest.json"
CATALOG_FILE, TRIE_FILE = "catalog/items.jsonl", "catalog/trie.safetensors"
REEXPORT = "specbeam export ... --overwrite"
Scoring = Literal["full", "constrained"]


class Manifest(Sealed, frozen=True, kw_only=True):
    """manifest.json: everything the runtime must know before it loads a graph."""

    specbeam_version: str
    precision: Precision
    scoring: Scoring  # what a request gets that asks for none
    opset: int
    target: ModelFacts
    draft: ModelFacts | None
    prompt: PromptSpec
    items: int
    identifiers: int
    identifier_length: int  # tokens in the longest, the end token included
    end_token: int | None  # behind every identifier that is generated, not in prompts; None: there is none
    catalog_tokens: int
    max_prompt_tokens: int
    max_top_k: int  # the longest list that a request may ask for
    files: dict[str, FileFacts]  # path in the bundle, "/" between parts; engines/ is not in it
    prompt_options: PromptOptions | UnsetType = UNSET  # that `prompt` was made from; older bundles do not say
    trained_prompt: PromptOptions | UnsetType | None = UNSET  # what the target was trained with; None: unknown

    @property
    def tree_path(self) -> int:
        """L: the most slots that a token names besides its prompt's (`ForwardInputs.visible_slots`)."""
        return self.identifier_length

    @property
    def columns(self) -> int:
        """C: the width of a row of log-probabilities."""
        return self.catalog_tokens


def save_trie(trie: ItemTrie, path: Path) -> None:
    """Write the trie's arrays under their field names (safetensors)."""
    save_file({field.name: getattr(trie, field.name) for field in fields(trie)}, path)


def engine_name(backend: str, device: str, precision: EnginePrecision, draft: EnginePrecision | None = None) -> str:
    """An engine's folder in `engines/`; the draft's precision is in it where it is another than the target's."""
    name = f"{backend}-{device}-{precision}"
    return name if draft in (None, precision) else f"{name}-draft-{draft}"


class ModelBundle(ABC):
    """What all bundles have: models and their engines. Every file is checked against its hash when first asked for."""

    manifest: "Manifest | TextManifest"

    def __init__(self, path: Path, manifest: "Manifest | TextManifest") -> None:
        self.path, self.manifest = path, manifest

    @abstractmethod
    def vocabulary(self) -> NDArray[np.int64]:
        """[C] the token id of every column of log-probabilities."""

    def file(self, name: str) -> Path:
        """A file of the bundle, once its bytes are what the manifest says."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no file {name}; it has: {', '.join(sorted(self.manifest.files))}.")
        _check(self.path / name, self.manifest.files[name], REEXPORT)
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

    def engine_names(self) -> list[str]:
        """Engines built into the bundle (one whose building was killed has a name that begins with a dot)."""
        return sorted(path.parent.name for path in self.path.glob(f"engines/[!.]*/{ENGINE_FACTS}"))

    def engine_facts(self, name: str) -> EngineFacts:
        """What an engine is; raises `BundleError` where it is absent or damaged."""
        file = self.path / "engines" / name / ENGINE_FACTS
        if not file.is_file():
            built = ", ".join(self.engine_names()) or "none"
            raise BundleError(
                f"{self.path} has no engine {name!r} (built: {built}). Build one with: "
                f"specbeam build-engine {self.path}"
            )
        return read_sealed(file, EngineFacts, self.rebuild(name), ENGINE_SCHEMA)

    def engine_folder(self, name: str, role: Role) -> Path:
        """The folder of an engine's graph, once its files are what engine.json says."""
        folder = self.path / "engines" / name
        files = {file: facts for file, facts in self.engine_facts(name).files.items() if file.startswith(f"{role}/")}
        if not files:
            raise BundleError(f"{folder} has no file of the {role}. Write it again with: {self.rebuild(name)}")
        for file, facts in files.items():
            _check(folder / file, facts, self.rebuild(name))
        return folder / role

    def rebuild(self, name: str, facts: EngineFacts | None = None) -> str:
        """The command that replaces an engine; with its facts, by one like it."""
        backend, _, rest = name.partition("-")
        device, _, rest = rest.partition("-")
        precision, _, draft = rest.partition("-draft-")
        parts = [f"specbeam build-engine {self.path} --backend {backend} --device {device}"]
        if precision not in ("", self.manifest.precision):
            parts.append(f"--precision {precision}")
        if draft:
            parts.append(f"--draft-precision {draft}")
        if "int8" in (precision, draft):
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


class Bundle(ModelBundle):
    """An opened bundle of models that write identifiers, with their catalog."""

    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read the manifest. Raises `BundleError` where it is absent, damaged, of another schema or of text."""
        path = Path(path)
        if bundle_kind(path) != "items":
            raise BundleError(f"{path} is a text bundle, which has no catalog. It is for: specbeam generate {path}")
        return cls(path, read_sealed(path / MANIFEST, Manifest, REEXPORT))

    def vocabulary(self) -> NDArray[np.int64]:
        return self.trie().vocabulary

    def catalog(self) -> Catalog:
        return Catalog.open(self.file(CATALOG_FILE))

    def trie(self) -> ItemTrie:
        return ItemTrie(**load_file(self.file(TRIE_FILE)))

    def prompts(self, trie: ItemTrie) -> PromptEncoder:
        """The encoder of histories, as the bundle was exported: identifiers in prompts have no end token."""
        tokens, end = trie.item_tokens(), self.manifest.end_token
        if end is not None:
            tokens[tokens == end] = PAD  # only an identifier's last token is the end token
        return PromptEncoder(self.manifest.prompt, tokens, self.manifest.max_prompt_tokens)


def of_items(bundle: ModelBundle, what: str) -> Bundle:
    """A bundle that must be one of items; raises `BundleError`: `what` cannot be had for text."""
    if not isinstance(bundle, Bundle):
        raise BundleError(f"{bundle.path} is a text bundle, for which there is no {what} yet.")
    return bundle


class _Kind(msgspec.Struct):
    kind: str = "items"  # what manifests of text bundles say of themselves, and others do not


def bundle_kind(path: Path) -> str:
    """ "items" or "text". Raises `BundleError` where there is no bundle; what else is wrong its reader says."""
    if not (path / MANIFEST).is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}. Make one with: specbeam export --help")
    try:
        return msgspec.json.decode((path / MANIFEST).read_bytes(), type=_Kind).kind
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "items"


def _plan_options(role: RoleFacts | None) -> list[str]:
    """What a plan was built for, and with."""
    if role is None or role.tensorrt is None:
        return []
    plan = role.tensorrt
    flags = {"--version-compatible": plan.version_compatible, "--hardware-compatible": plan.hardware_compatible}
    limits = plan.limits
    sizes = f"--max-batch {limits.max_batch} --max-prompt {limits.max_prompt} --max-nodes {limits.max_nodes}"
    return [sizes, *(flag for flag, given in flags.items() if given)]


def _check(path: Path, facts: FileFacts, remedy: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing. Write it again with: {remedy}")
    size = path.stat().st_size
    if size != facts.bytes:
        raise BundleError(f"{path} has {size} bytes, expected {facts.bytes}. Write it again with: {remedy}")
    got = sha256(path)
    if got != facts.sha256:
        raise BundleError(
            f"{path} is damaged: its SHA-256 is {got}, expected {facts.sha256}. Write it again with: {remedy}"
        )
