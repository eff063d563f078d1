"""LoRA adapters: their base model, and whether the new identifiers' embedding rows are really there."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from transformers import PreTrainedModel

from ..catalog.errors import EngineError, ExportError, SpecBeamError, is_fault, said
from ..catalog.extras import install
from ..catalog.records import read_json
from ..engines.checkpoint_guard import tensor_shapes
from ..engines.decoder_facts import matrix
from .hub import ADAPTER as CONFIG
from .hub import ADAPTER_WEIGHTS as WEIGHTS
from .hub import Bar, fetch, unseen
from .hub_names import checked_name, is_path

REMEDY = (
    'Train with modules_to_save=["embed_tokens", "lm_head"] (or trainable_token_indices of the new tokens), or merge '
    "the adapter in the process that trained it (merge_and_unload) and save the whole model with its tokenizer."
)
SAVE_AGAIN = "Copy the adapter again, or save it again with peft."
MATRICES = "embed_tokens|lm_head"
SHOWN = 5  # how many tokens a message names


Rank = Annotated[int, Meta(ge=1, le=2**16)]
Row = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Lora(msgspec.Struct):
    """What is relied on of adapter_config.json; the rest is peft's."""

    peft_type: str
    base_model_name_or_path: str
    revision: str | None = None  # of the base model, where that is a hub's
    r: Rank = 8
    rank_pattern: dict[str, Rank] | None = None
    trainable_token_indices: dict[str, list[Row]] | list[Row] | None = None


@dataclass(frozen=True)
class Adapter:
    """A PEFT LoRA adapter in a local directory, on a base model in another."""

    directory: Path
    base: Path  # where a hub's lies in its cache
    shapes: dict[str, tuple[int, ...]]  # tensor name to shape, of everything the adapter saved
    trained: dict[str, tuple[int, ...]]  # module name to the token ids of its trainable_token_indices

    @classmethod
    def open(cls, directory: Path) -> "Adapter":
        """Read an adapter's configuration and the names of its tensors.

        Raises `ExportError` when it is not LoRA, pickled, or its base model is neither here nor a hub's.
        """
        path = directory / CONFIG
        config = _read(directory)
        indices = config.trainable_token_indices or {}
        by_module = indices if isinstance(indices, dict) else {"embed_tokens": indices}
        trained = {name.rpartition(".")[2]: tuple(rows) for name, rows in by_module.items()}
        if config.peft_type != "LORA":
            raise ExportError(f"{directory} is a PEFT adapter of type {config.peft_type}; only LORA can be merged.")
        if not (directory / WEIGHTS).is_file():
            raise ExportError(f"{directory} has no {WEIGHTS} (pickles are not loaded). Save it again with peft.")
        try:
            shapes = tensor_shapes(directory / WEIGHTS)
        except EngineError as error:
            raise ExportError(str(error)) from error
        rank = max((config.r, *(config.rank_pattern or {}).values()))
        if rank > max((max(shape, default=0) for shape in shapes.values()), default=0):
            raise ExportError(f"{path} says rank {rank}, more than any tensor of {WEIGHTS} has. {SAVE_AGAIN}")
        return cls(directory, base_of(directory), shapes, trained)

    def merge(
        self,
        base: PreTrainedModel,
        vocabulary: Mapping[str, int],
        base_vocabulary: Mapping[str, int] | None,
        identifiers: Sequence[str],
    ) -> PreTrainedModel:
        """The base model with the adapter merged into it, resized where the adapter saved more rows.

        `vocabulary` is the adapter's tokenizer, `base_vocabulary` the base model's. Raises
        `ExportError` when an identifier is new and its rows were neither saved nor trained, or when
        the adapter's tensors do not fit the model.
        """
        new = [token for token in identifiers if token in vocabulary and not _known(token, vocabulary, base_vocabulary)]
        numbers = {token: vocabulary[token] for token in new}
        base_rows = len(matrix(base.get_input_embeddings()))
        tied = bool(base.config.tie_word_embeddings)
        self._check_rows("embed_tokens", numbers, base_rows)
        if not tied:
            self._check_rows("lm_head", numbers, base_rows)
        saved = [shape[0] for name, shape in self.shapes.items() if _is_matrix(name, MATRICES)]
        rows = max(saved or [base_rows, *(row + 1 for rows in self.trained.values() for row in rows)])
        known = max(base_rows, 1 + max(vocabulary.values(), default=0))
        if not saved and rows > known:
            raise ExportError(
                f"{self.directory / CONFIG} trains row {rows - 1} of trainable_token_indices; the base model and the "
                f"adapter's tokenizer have {known}. {REMEDY}"
            )
        if rows != base_rows:
            base.resize_token_embeddings(rows, mean_resizing=False)
        merged = self._merge(base)
        head: torch.nn.Module = merged.get_output_embeddings()  # type: ignore[no-untyped-call]
        embedding = merged.get_input_embeddings()
        if tied and torch.equal(matrix(head), matrix(embedding)):
            head.weight = embedding.weight
            merged.config.tie_word_embeddings = True  # peft has set it to False
        elif tied:  # trained apart, as modules_to_save and LoRA on the embeddings do
            self._check_rows("lm_head", numbers, base_rows)
            merged.config.tie_word_embeddings = False
            merged.all_tied_weights_keys = {}
        return merged

    def _check_rows(self, module: str, numbers: Mapping[str, int], base_rows: int) -> None:
        """Raise unless the adapter holds or trained the rows `numbers` of embed_tokens or lm_head."""
        saved = max((shape[0] for name, shape in self.shapes.items() if _is_matrix(name, module)), default=0)
        adapted = any(f".{module}.lora_" in name for name in self.shapes)  # LoRA on top of the base model's rows
        covered, trained = max(saved, base_rows if adapted else 0), set(self.trained.get(module, ()))
        lacking = [f"{token} ({row})" for token, row in numbers.items() if row >= covered and row not in trained]
        if lacking:
            raise ExportError(
                f"{self.directory}: {len(lacking)} identifier tokens are new to the base model {self.base}, and the "
                f"adapter neither saved nor trained their rows of {module}: {', '.join(lacking[:SHOWN])}"
                f"{', ...' if len(lacking) > SHOWN else ''}. They would be random. {REMEDY}"
            )

    def _merge(self, base: PreTrainedModel) -> PreTrainedModel:
        """Load the adapter's tensors, all of them, and merge; the result must predict as the unmerged model does."""
        try:
            from peft import LoraConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
        except ImportError as error:
            raise ExportError(
                f"{self.directory} is a LoRA adapter, which needs peft. Run: {install('export')}"
            ) from error
        rows = len(matrix(base.get_input_embeddings()))
        ids = torch.arange(rows - 1, -1, -(rows // 64 + 1))[None]
        try:
            wrapped = PeftModel(base, LoraConfig.from_pretrained(str(self.directory))).eval()
            tensors = load_peft_weights(str(self.directory), device="cpu")
            result: Any = set_peft_model_state_dict(wrapped, tensors)
            self._check_loaded(tensors, result.missing_keys, result.unexpected_keys)
            with torch.inference_mode():
                expected = wrapped(input_ids=ids).logits
            _untie(wrapped)
            merged: Any = wrapped.merge_and_unload()
        except SpecBeamError:
            raise
        except BaseException as error:
            if not is_fault(error):
                raise
            fault = f"{self.directory} could not be merged into {self.base} as its {CONFIG} describes it"
            raise ExportError(f"{fault}: {said(error)}. {SAVE_AGAIN}") from error
        assert isinstance(merged, PreTrainedModel)
        with torch.inference_mode():
            difference = float((merged(input_ids=ids).logits - expected).abs().max() / expected.abs().max())
        if not difference < 1e-3:
            raise ExportError(
                f"{self.directory} changes its predictions by {difference:.2g} of their scale when merged into "
                f"{self.base}. Merge it in the process that trained it (merge_and_unload) and save the whole model."
            )
        merged.requires_grad_(False)
        return merged

    def _check_loaded(self, tensors: Mapping[str, torch.Tensor], missing: list[str], unexpected: list[str]) -> None:
        """Raise unless every tensor went where it belongs; of what peft saves twice, one copy may stay over."""
        lost = [name for name in missing if "lora_" in name or ".default." in name]
        used = [tensor for name, tensor in tensors.items() if name not in unexpected]
        left = [name for name in unexpected if not any(torch.equal(tensors[name], tensor) for tensor in used)]
        if lost or left:
            raise ExportError(
                f"{self.directory} does not fit its base model {self.base}: {len(lost)} tensors missing, {len(left)} "
                f"left over (first: {(lost + left)[0]}). Was it trained on another base model?"
            )


def base_of(
    directory: Path, *, check: Callable[[Path], object] = lambda folder: None, bar: Bar = unseen,
    told: Callable[[str], None] = lambda stage: None,
) -> Path:  # fmt: skip
    """Where an adapter's base model lies: in a folder that is here, or else in a hub's cache, fetched as by `fetch`.

    Raises `ExportError` where it can be neither, or is not to be had.
    """
    config, file = _read(directory), directory / CONFIG
    name = config.base_model_name_or_path
    if is_checkpoint(Path(name)):
        return Path(name)
    try:
        if is_path(name):
            raise ExportError("It is a path. Put the base model on this machine and set base_model_name_or_path to it.")
        found = checked_name(name, name, config.revision)
        told(f"fetching its base model {found}")
        return fetch(found, check=check, bar=bar)
    except ExportError as error:
        raise ExportError(
            f"{file} names the base model {name!r}, which is not a local directory with a config.json. {error}"
        ) from error


def _read(directory: Path) -> Lora:
    return read_json(directory / CONFIG, Lora, "expected a PEFT adapter's configuration", ExportError)[0]


def is_checkpoint(directory: Path) -> bool:
    """Whether a model lies there; a name that cannot be is no error of its own."""
    try:
        return (directory / "config.json").is_file()
    except OSError:
        return False


def _untie(model: torch.nn.Module) -> None:
    """Give every module that shares its weight a copy: merging into a shared one would count two deltas twice."""
    seen: set[int] = set()
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None and id(weight) in seen:
            module.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        seen.add(id(weight))


def _known(token: str, vocabulary: Mapping[str, int], base: Mapping[str, int] | None) -> bool:
    """Whether the base model had this very token; without its tokenizer nothing is taken for granted."""
    return base is not None and base.get(token) == vocabulary[token]


def _is_matrix(name: str, modules: str) -> bool:
    """Whether a saved tensor is a whole matrix of one of the modules (a pattern)."""
    return re.search(rf"\.({modules})\.(base_layer\.|modules_to_save\.)?weight$", name) is not None
