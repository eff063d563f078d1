"""A pair of checkpoints and a catalog to a bundle, whole or not at all."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from .. import __version__
from ..catalog.errors import ExportError
from ..catalog.files import check_replaceable, whole_directory
from ..catalog.items import Catalog
from ..catalog.prompt import PromptEncoder, PromptSpec, compile_prompt
from ..catalog.trie import ItemTrie
from ..engines.bundle import (
    CATALOG_FILE,
    MANIFEST,
    SCHEMA_VERSION,
    TRIE_FILE,
    Manifest,
    ModelFacts,
    file_facts,
    save_trie,
    sealed,
)
from ..engines.torch import DTYPES
from .checkpoint import Checkpoint, model_facts
from .onnx import EXTERNAL_BYTES, OPSET, export_graph
from .parity import check_parity
from .quiet import quiet

Progress = Callable[[str], None]
SHOWN = 5  # how many tokens a message names


def export_bundle(
    target: Path,
    draft: Path | None,
    catalog: Path,
    items: Path | None,
    output: Path,
    *,
    prompt: str | None = None,
    separator: str = "",
    chat: bool = False,
    history_length: int = 20,
    precision: str = "fp32",
    checkpoints: bool = True,
    overwrite: bool = False,
    external_bytes: int = EXTERNAL_BYTES,
    progress: Progress = lambda stage: None,
) -> Manifest:
    """Export `target` and `draft` for the items of `catalog` (an index.json) to the directory `output`.

    `items` holds titles; `prompt`, `separator`, `chat` and `history_length` are those of
    `catalog.prompt.compile_prompt`; `checkpoints` keeps copies for the torch engine; weights beyond
    `external_bytes` lie beside their graph. `progress` is told each stage. Every graph is compared
    with its model before anything appears under `output`. Raises `SpecRecError` (mostly
    `ExportError`) with the reason and the remedy, and leaves nothing behind.
    """
    if precision not in DTYPES:
        raise ExportError(f"The precision {precision!r} is unknown; choose one of {', '.join(DTYPES)}.")
    check_replaceable(output, kind=MANIFEST, replace=overwrite)  # before the work; whole_directory checks again
    progress("reading the catalog")
    recommendable = Catalog.load(catalog, items)
    sources = {role: Checkpoint.open(path) for role, path in (("target", target), ("draft", draft)) if path is not None}
    if draft is not None:
        check_same_tokens(recommendable, sources["target"].tokenizer, sources["draft"].tokenizer)
    tokenizer = sources["target"].tokenizer
    identifiers = recommendable.token_ids(tokenizer.get_vocab())  # [I, L]
    trie = ItemTrie.build(identifiers)
    room = min(source.context for source in sources.values()) - trie.length + 1
    with quiet():
        spec = compile_prompt(
            tokenizer, recommendable, template=prompt, separator=separator, chat=chat, history_length=history_length
        )
    PromptEncoder(spec, identifiers, room)  # raises when not even one item fits
    with whole_directory(output, kind=MANIFEST, replace=overwrite) as part:
        progress("writing the catalog")
        recommendable.save(part / CATALOG_FILE)
        save_trie(trie, part / TRIE_FILE)
        facts = {
            role: _export_model(
                role, source, recommendable, trie, part, precision, checkpoints, external_bytes, progress
            )
            for role, source in sources.items()
        }
        progress("writing the manifest")
        manifest = _manifest(part, facts, spec, recommendable, trie, precision, room)
        (part / MANIFEST).write_bytes(sealed(manifest))
        for path in part.rglob("*"):
            if path.is_file():  # safetensors writes for its owner alone; the bundle is read by servers, too
                path.chmod((part / MANIFEST).stat().st_mode)
    return manifest


def check_same_tokens(catalog: Catalog, target: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase) -> None:
    """Draft and target must give the catalog's tokens the same ids. Raises `ExportError` with what differs."""
    ids = {"target": target.get_vocab(), "draft": draft.get_vocab()}
    faults = []
    for role, vocabulary in ids.items():
        missing = [token for token in catalog.tokens if token not in vocabulary]
        if missing:
            faults.append(f"{len(missing)} are missing in the {role}'s tokenizer: {_some(missing)}")
    other = [
        f"{token} (target {ids['target'][token]}, draft {ids['draft'][token]})"
        for token in catalog.tokens
        if token in ids["target"] and token in ids["draft"] and ids["target"][token] != ids["draft"][token]
    ]
    if other:
        faults.append(f"{len(other)} have different ids: {_some(other)}")
    if faults:
        raise ExportError(
            f"Of the catalog's {len(catalog.tokens)} tokens {'; '.join(faults)}. Target and draft must know every "
            "identifier token of the catalog by the same id: give the index.json they were trained on, and train both "
            "with one tokenizer."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _export_model(
    role: str,
    source: Checkpoint,
    catalog: Catalog,
    trie: ItemTrie,
    part: Path,
    precision: str,
    checkpoints: bool,
    external_bytes: int,
    progress: Progress,
) -> ModelFacts:
    """Write one model's graph, and its checkpoint, to `part`/`role`; compare the graph with the model."""
    folder = part / role
    folder.mkdir()
    progress(f"loading the {role}")
    model = source.load(precision, catalog.tokens)
    facts = model_facts(model)
    if checkpoints:
        with quiet():
            model.save_pretrained(folder / "checkpoint")
            source.tokenizer.save_pretrained(folder / "checkpoint")
    progress(f"exporting the {role}'s graph ({facts.parameters:,} parameters)")
    export_graph(model, trie.vocabulary, folder / "model.onnx", external_bytes=external_bytes)
    progress(f"comparing the {role}'s graph with its model")
    report = check_parity(folder / "model.onnx", model, trie.vocabulary, precision)
    progress(f"the {role}'s graph agrees with its model ({report.summary()})")
    return facts


def _manifest(
    part: Path,
    facts: dict[str, ModelFacts],
    prompt: PromptSpec,
    catalog: Catalog,
    trie: ItemTrie,
    precision: str,
    room: int,
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        specrec_version=__version__,
        precision=precision,  # type: ignore[arg-type]  # checked on entry
        scoring="full",
        opset=OPSET,
        target=facts["target"],
        draft=facts.get("draft"),
        prompt=prompt,
        items=len(catalog.identifiers),
        identifiers=trie.identifiers,
        identifier_length=trie.length,
        catalog_tokens=len(trie.vocabulary),
        max_prompt_tokens=room,
        files=file_facts(part),
    )
