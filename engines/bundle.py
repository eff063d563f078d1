"""The bundle on disk: what export writes, build-engine extends and the runtime opens."""

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file

from ..catalog.errors import BundleError
from ..catalog.files import Frozen, sha256
from ..catalog.items import Catalog
from ..catalog.prompt import PromptEncoder, PromptSpec
from ..catalog.trie import PAD, ItemTrie

SCHEMA_VERSION = 2
MANIFEST, ENGINE_FACTS = "manifest.json", "engine.json"
CATALOG_FILE, TRIE_FILE = "catalog/items.jsonl", "catalog/trie.safetensors"
REEXPORT = "specrec export ... --overwrite"
Precision = Literal["fp32", "fp16", "bf16"]
Role = Literal["target", "draft"]
Scoring = Literal["full", "constrained"]


class Sealed(Frozen, frozen=True):
    """A JSON file that says which schema it follows and proves that it is as it was written; see `sealed`."""

    schema_version: int
    checksum: str = ""


T = TypeVar("T", bound=Sealed)


class ModelFacts(Frozen, frozen=True):
    """One exported model, as its graph needs it to be fed."""

    architecture: str  # e.g. "LlamaForCausalLM"
    parameters: int
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int  # rows of the head
    context: int  # positions the model was made for


class FileFacts(Frozen, frozen=True):
    """One file of the bundle or of an engine."""

    sha256: str
    bytes: int


class Manifest(Sealed, frozen=True, kw_only=True):
    """manifest.json: everything the runtime must know before it loads a graph."""

    specrec_version: str
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


class LatencyPoint(Frozen, frozen=True):
    """Median time of one call of an engine."""

    batch: int
    past: int  # slots cached before the call
    new: int  # tokens in the call
    milliseconds: float


class RoleFacts(Frozen, frozen=True):
    """One graph of an engine."""

    source_sha256: str  # `Bundle.graph_sha256` of what it was built from
    max_difference: float  # largest difference of a log-probability to that graph, as measured when built
    latency: tuple[LatencyPoint, ...]


class EngineFacts(Sealed, frozen=True, kw_only=True):
    """engine.json: what an engine was built from and for, and how fast it was there."""

    backend: str
    device: str
    precision: Precision
    threads: int
    versions: dict[str, str]
    roles: dict[str, RoleFacts]
    files: dict[str, FileFacts]  # path in the engine's folder


def save_trie(trie: ItemTrie, path: Path) -> None:
    """Write the trie's arrays under their field names (safetensors)."""
    save_file({field.name: getattr(trie, field.name) for field in fields(trie)}, path)


def to_json(value: object) -> bytes:
    """Indented JSON, for people to read as well."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def sealed(content: Sealed) -> bytes:
    """The file's JSON, the SHA-256 of its content (compact, without checksum) written into it."""
    return to_json(replace(content, checksum=_checksum(content)))


def _checksum(content: Sealed) -> str:
    return hashlib.sha256(msgspec.json.encode(replace(content, checksum=""))).hexdigest()


def file_facts(root: Path) -> dict[str, FileFacts]:
    """Hash and size of every file below `root`, by its path in it."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): FileFacts(sha256=sha256(path), bytes=path.stat().st_size) for path in files
    }


class Bundle:
    """An opened bundle. Every file is checked against its recorded hash when it is first asked for."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read the manifest. Raises `BundleError` where it is absent, damaged or of another schema."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}. Make one with: specrec export --help")
        return cls(path, read_sealed(path / MANIFEST, Manifest, REEXPORT))

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
            raise BundleError(f"{self.path} has no draft model. Use --drafter none, or export it with --draft DIR.")
        return facts

    def graph(self, role: Role) -> Path:
        """The exported ONNX graph, its weights checked with it."""
        self.facts(role)
        for name in self._graph_files(role):
            self.file(name)
        return self.file(f"{role}/model.onnx")

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

    def engine_names(self) -> list[str]:
        """Engines built into the bundle (one whose building was killed has a name that begins with a dot)."""
        return sorted(path.parent.name for path in self.path.glob(f"engines/[!.]*/{ENGINE_FACTS}"))

    def engine_facts(self, name: str) -> EngineFacts:
        """What an engine is; raises `BundleError` where it is absent or damaged."""
        file = self.path / "engines" / name / ENGINE_FACTS
        if not file.is_file():
            built = ", ".join(self.engine_names()) or "none"
            raise BundleError(
                f"{self.path} has no engine {name!r} (built: {built}). Build one with: specrec build-engine {self.path}"
            )
        return read_sealed(file, EngineFacts, self.rebuild(name))

    def engine_file(self, name: str, file: str) -> Path:
        """A file of an engine, once its bytes are what engine.json says."""
        folder = self.path / "engines" / name
        facts = self.engine_facts(name).files
        if file not in facts:
            raise BundleError(f"{folder} has no file {file}. Write it again with: {self.rebuild(name)}")
        for other in facts:  # external weights are loaded by the graph that names them
            if Path(other).parent == Path(file).parent:
                _check(folder / other, facts[other], self.rebuild(name))
        return folder / file

    def rebuild(self, name: str) -> str:
        """The command that replaces an engine."""
        backend, _, rest = name.partition("-")
        return f"specrec build-engine {self.path} --backend {backend} --device {rest.partition('-')[0]} --overwrite"

    def graph_sha256(self, role: Role) -> str:
        """One hash for an exported graph and its weights, from those in the manifest: what an engine was built from."""
        parts = [f"{name} {facts.sha256}\n" for name, facts in sorted(self._graph_files(role).items())]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def _graph_files(self, role: Role) -> dict[str, FileFacts]:
        files = self.manifest.files.items()
        return {n: f for n, f in files if n.startswith(f"{role}/") and not n.startswith(f"{role}/checkpoint/")}


class _Versioned(msgspec.Struct):
    schema_version: int


def read_sealed(path: Path, kind: type[T], remedy: str) -> T:
    """A JSON file whose schema version, the first thing looked at, is ours, and whose checksum is right."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")  # msgspec does not look at the encoding of what it skips
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {version}, this SpecRec reads {SCHEMA_VERSION}. "
                f"Write it again with: {remedy}"
            )
        content = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}. Write it again with: {remedy}") from error
    if content.checksum != _checksum(content):
        raise BundleError(
            f"{path} is damaged, or was edited: its content does not match its checksum. Write it again with: {remedy}"
        )
    return content


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
