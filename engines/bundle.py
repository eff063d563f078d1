"""The bundle on disk: what export writes, build-engine extends and the runtime opens."""

import hashlib
import shlex
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from ..catalog import checks
from ..catalog.bounds import DAMAGED, Positive, Whole, check_names, leads_out
from ..catalog.errors import BundleError, CatalogError
from ..catalog.items import Catalog
from ..catalog.prompt import PromptEncoder, PromptSpec
from ..catalog.prompt_options import PromptOptions
from ..catalog.trie import PAD, ItemTrie
from ..catalog.trie_file import check_agreement, load_trie
from .again import CATALOG_FILE as CATALOG_FILE
from .again import export_command
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
    check_file,
)
from .sealed import Sealed, read_sealed

if TYPE_CHECKING:
    from .text_bundle import TextManifest

MANIFEST = "manifest.json"
TRIE_FILE = "catalog/trie.safetensors"
Scoring = Literal["full", "constrained"]
SAMPLES = 4


class Manifest(Sealed, frozen=True, kw_only=True):
    """manifest.json: everything the runtime must know before it loads a graph."""

    specbeam_version: str
    precision: Precision
    scoring: Scoring  # what a request gets that asks for none
    opset: Positive
    target: ModelFacts
    draft: ModelFacts | None
    prompt: PromptSpec
    items: Positive
    identifiers: Positive
    identifier_length: Annotated[int, msgspec.Meta(ge=1, le=10_000)]  # of the longest: tokens, the end token included
    end_token: Whole | None  # behind every identifier that is generated, not in prompts; None: there is none
    catalog_tokens: Positive
    max_prompt_tokens: Positive
    max_top_k: Positive  # the longest list that a request may ask for
    files: dict[str, FileFacts]  # path in the bundle, "/" between parts; engines/ is not in it
    prompt_options: PromptOptions | UnsetType = UNSET  # that `prompt` was made from; older bundles do not say
    trained_prompt: PromptOptions | UnsetType | None = UNSET  # what the target was trained with; None: unknown

    def __post_init__(self) -> None:
        check_names(self.files)
        models = [model for model in (self.target, self.draft) if model is not None]
        prompt = (*self.prompt.prefix_ids, *self.prompt.separator_ids, *self.prompt.suffix_ids)
        vocabulary, context = min(m.vocabulary for m in models), min(m.context for m in models)
        if max(prompt, default=0) >= vocabulary:
            raise ValueError(f"the prompt has token {max(prompt)}, the models' vocabularies {vocabulary} tokens")
        if self.max_prompt_tokens + self.identifier_length - 1 > context:
            raise ValueError(
                f"a prompt of {self.max_prompt_tokens} tokens and an identifier of {self.identifier_length} exceed the "
                f"context of {context} positions"
            )

    @property
    def tree_path(self) -> int:
        """L: the most slots that a token names besides its prompt's (`ForwardInputs.visible_slots`)."""
        return self.identifier_length

    @property
    def columns(self) -> int:
        """C: the width of a row of log-probabilities."""
        return self.catalog_tokens


def engine_name(backend: str, device: str, precision: EnginePrecision, draft: EnginePrecision | None = None) -> str:
    """An engine's folder in `engines/`; the draft's precision is in it where it is another than the target's."""
    name = f"{backend}-{device}-{precision}"
    return name if draft in (None, precision) else f"{name}-draft-{draft}"


class Sample(NamedTuple):
    """A prompt as requests have it, and what may follow."""

    what: str  # in words
    prompt: NDArray[np.int64]  # [P] token ids
    following: NDArray[np.int64]  # [n] each of them may be the next token


class ModelBundle(ABC):
    """What all bundles have: models and their engines. Every file is checked against its hash when first asked for."""

    manifest: "Manifest | TextManifest"

    def __init__(self, path: Path, manifest: "Manifest | TextManifest") -> None:
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
        check_file(self.path / name, self.manifest.files[name], self.reexport(), self.path)
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
        if Path(name).name != name or leads_out(file, self.path) or not file.is_file():
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
            check_file(folder / file, facts, self.rebuild(name), self.path)
        return folder / role

    def reexport(self) -> str:
        """The command that writes the bundle again; what only its owner has is in capitals."""
        return export_command(self.path / MANIFEST)

    def build(self, name: str) -> str:
        """The command that builds an engine of this name, the data that it takes left out."""
        backend, _, rest = name.partition("-")
        device, _, rest = rest.partition("-")
        precision, _, draft = rest.partition("-draft-")
        parts = [f"specbeam build-engine {shlex.quote(str(self.path))} --backend {backend} --device {device}"]
        if precision not in ("", self.manifest.precision):
            parts.append(f"--precision {precision}")
        if draft:
            parts.append(f"--draft-precision {draft}")
        return " ".join(parts)

    def rebuild(self, name: str, facts: EngineFacts | None = None) -> str:
        """The command that replaces an engine; with its facts, by one like it."""
        parts = [self.build(name)]
        if "-int8" in name:
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
        path = checks.path(path, "bundle")
        if bundle_kind(path) != "items":
            raise BundleError(f"{path} is a text bundle, which has no catalog. It is for: specbeam generate {path}")
        return cls(path, read_sealed(path / MANIFEST, Manifest, export_command(path / MANIFEST)))

    def vocabulary(self) -> NDArray[np.int64]:
        return self.trie().vocabulary

    def samples(self) -> list[Sample]:
        """Of histories of 1 to as many items as a prompt holds, drawn from the catalog; items' first tokens follow."""
        trie, rng = self.trie(), np.random.default_rng(0)
        prompts = self.prompts(trie)
        following = trie.tokens(rng.permutation(np.arange(trie.level_start[1], trie.level_start[2])))
        lengths = np.unique(np.linspace(1, prompts.max_items, SAMPLES).round().astype(int)).tolist()
        histories = [rng.integers(len(trie.item), size=length) for length in lengths]
        return [
            Sample(f"the prompt of a history (length {len(h)})", prompts.encode(h).ids, following) for h in histories
        ]

    def catalog(self) -> Catalog:
        """The catalog by itself; see `items`."""
        return Catalog.open(self.file(CATALOG_FILE))

    def trie(self) -> ItemTrie:
        """The trie, every number in it checked. Raises `BundleError` where it is none, or not this bundle's."""
        path, manifest = self.file(TRIE_FILE), self.manifest
        try:
            trie = load_trie(path)
        except CatalogError as error:
            raise BundleError(f"{path} is damaged: {error}. Write it again with: {self.reexport()}") from None
        got = len(trie.item), trie.identifiers, trie.length, len(trie.vocabulary)
        expected = manifest.items, manifest.identifiers, manifest.identifier_length, manifest.catalog_tokens
        if got != expected:
            raise BundleError(
                f"{path} has {_sizes(got)}; {MANIFEST} says {_sizes(expected)}. Write it again with: {self.reexport()}"
            )
        vocabulary = min(model.vocabulary for model in (manifest.target, manifest.draft) if model is not None)
        if trie.vocabulary[-1] >= vocabulary or not trie.ends_with(manifest.end_token):
            raise BundleError(
                f"{path} has tokens up to {trie.vocabulary[-1]}, expected below {vocabulary}, and of the end token "
                f"({manifest.end_token}) one behind every identifier. Write it again with: {self.reexport()}"
            )
        return trie

    def items(self) -> tuple[Catalog, ItemTrie]:
        """The catalog and its trie. Raises `BundleError` where they are not of the same items."""
        catalog, trie = self.catalog(), self.trie()
        try:
            check_agreement(catalog, trie, self.manifest.end_token)
        except CatalogError as error:
            raise BundleError(
                f"{self.path / CATALOG_FILE} is of another catalog than {TRIE_FILE}: {error}. Write both again with: "
                f"{self.reexport()}"
            ) from None
        return catalog, trie

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
    except DAMAGED:
        return "items"


def _sizes(sizes: tuple[int, int, int, int]) -> str:
    return "{} items, {} identifiers of at most {} tokens, {} distinct tokens".format(*sizes)


def _plan_options(role: RoleFacts | None) -> list[str]:
    """What a plan was built for, and with."""
    if role is None or role.tensorrt is None:
        return []
    plan = role.tensorrt
    flags = {"--version-compatible": plan.version_compatible, "--hardware-compatible": plan.hardware_compatible}
    limits = plan.limits
    sizes = f"--max-batch {limits.max_batch} --max-prompt {limits.max_prompt} --max-nodes {limits.max_nodes}"
    return [sizes, *(flag for flag, given in flags.items() if given)]
