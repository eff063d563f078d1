"""What a checkpoint was trained with: taken for what is not told, and held against what is."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from ..catalog import checks
from ..catalog.errors import ExportError, OptionError, PromptError
from ..catalog.identifiers import Warn
from ..catalog.prompts.encoder import PromptSpec
from ..catalog.prompts.options import PromptOptions, contradictions, contrast

TRAINING, ALIGNMENT = "training.json", "alignment.json"  # beside the weights, by `train` and `align`
HARMLESS = ("history_length",)  # of a prompt's options: a model trained on other lengths still knows the prompt

Given = PromptOptions | Mapping[str, Any] | None  # all options of a prompt, or those that were told


class _Record(msgspec.Struct):
    """What is looked at of training.json or alignment.json; the rest is for people."""

    prompt: PromptOptions
    compiled: PromptSpec | None = None  # older versions wrote none


@dataclass(frozen=True)
class Trained:
    """What `train` or `align` wrote of the prompt beside a checkpoint."""

    file: Path
    prompt: PromptOptions
    compiled: PromptSpec | None

    @classmethod
    def of(cls, checkpoint: Path | None) -> "Trained | None":
        """None where nothing is known. Raises `ExportError` for a record that cannot be read."""
        files = () if checkpoint is None else (checkpoint / ALIGNMENT, checkpoint / TRAINING)
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            return None
        try:
            record = msgspec.json.decode(file.read_bytes(), type=_Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ExportError(
                f"{file} does not say what the model was trained with ({error}); expected what `specbeam train` or "
                "`specbeam align` wrote. Restore it, or move it away and give the prompt's options."
            ) from error
        return cls(file, record.prompt, record.compiled)

    def check(self, spec: PromptSpec) -> None:
        """Raise `PromptError` where the same options give other tokens than in training."""
        parts = ("prefix_ids", "separator_ids", "suffix_ids")
        if self.compiled is None or all(getattr(spec, part) == getattr(self.compiled, part) for part in parts):
            return
        raise PromptError(
            "the prompt's tokens are not those of training, although its options are: the tokenizer, its chat template "
            "or what that looks up (a date?) has changed.\n"
            + "".join(
                f"  {name}: {own.template!r}, tokens {own.prefix_ids} {own.separator_ids} {own.suffix_ids}\n"
                for name, own in (("now", spec), (f"in {self.file}", self.compiled))
            )
            + "Use the tokenizer that the model was trained with (a date may be a --chat-variable), or add "
            "--other-prompt."
        )


def as_trained(
    trained: Trained | None,
    given: Given,
    *,
    other_prompt: bool = False,
    harmless: Collection[str] = HARMLESS,
    warn: Warn = lambda text: None,
) -> PromptOptions:
    """The prompt's options: those that were given, the others as `trained`.

    other_prompt: what was trained is left aside. Raises `OptionError` where an option that was given is
    not as trained; if it is one of `harmless`, `warn` is told instead.
    """
    told = asdict(given) if isinstance(given, PromptOptions) else checks.known(given or {}, PromptOptions, "prompt")
    if trained is None or other_prompt:
        return PromptOptions(**told)
    if told.get("end_token") == "auto":  # whatever was decided in training
        del told["end_token"]
    options = PromptOptions(**{**asdict(trained.prompt), **told})
    faults = contradictions(options, trained.prompt)
    grave = [name for name in faults if name not in harmless]
    if grave:
        raise OptionError(
            f"the model was trained with another prompt, says {trained.file}: "
            f"{contrast(options, trained.prompt, grave)}. Leave that out to have it as trained, or add --other-prompt "
            "to have another on purpose (what is not given is then as if nothing were known of a training)."
        )
    if faults:
        warn(f"{trained.file}: the model was trained with another prompt: {contrast(options, trained.prompt, faults)}")
    return options


def warn_of_draft(draft: Path | None, options: PromptOptions, warn: Warn) -> None:
    """Tell of a draft that was trained with another prompt than its target is asked by."""
    trained = Trained.of(draft)
    if trained is not None and (other := contradictions(options, trained.prompt)):
        warn(
            f"{trained.file}: the draft was trained with another prompt: "
            f"{contrast(options, trained.prompt, other)}. Lists stay the same, but fewer of its drafts are accepted"
        )
