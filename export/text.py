"""A checkpoint to a text bundle, whole or not at all."""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from .. import __version__
from ..catalog import checks
from ..catalog.errors import ExportError, PromptError
from ..catalog.files import check_replaceable, whole_directory
from ..catalog.identifiers import Warn, adds_special, warn_of_bos
from ..catalog.prompts.chat import Chat
from ..catalog.prompts.options import check_chat_only
from ..engines.bundle.checksums import file_facts
from ..engines.bundle.model import MANIFEST
from ..engines.bundle.sealed import SCHEMA_VERSION, sealed
from ..engines.bundle.texts import TOKENIZER_FILE, TextManifest, TextPrompt
from ..engines.generation import token_settings
from ..engines.torch import DTYPES
from ..pools.texts.tokenizer import fingerprint, load
from .bundle import check_flags, shown, warning
from .checkpoint import Checkpoint
from .local import Named, local
from .model import GraphSettings, Progress, export_model
from .onnx import EXTERNAL_BYTES, OPSET
from .quiet import quiet

PROMPT = "{prompt}"
TREE_PATH = 16  # tokens of a draft's longest branch, and the one before it: graphs with index inputs have a fixed size
SAMPLES = (  # the tokenizer without transformers must agree with the one that the model was trained with
    "A matte black desk lamp, 12 in. (30 cm) tall: it dims.",
    "\n\tÜber 100 % \u201ccotton\u201d\u2026 \u4f60\u597d",
    " a  b",
    "",
)  # fmt: skip


def export_text(
    target: Named,
    output: Path,
    *,
    prompt: str | None = None,
    chat: bool = False,
    system: str | None = None,
    chat_variables: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    checkpoints: bool = True,
    overwrite: bool = False,
    external_bytes: int = EXTERNAL_BYTES,
    progress: Progress = lambda stage: None,
) -> TextManifest:
    """Export `target` with its whole vocabulary to the directory `output`.

    prompt: text with "{prompt}" in it that is put around every prompt; with `chat` it is the user's message in the
    tokenizer's chat template, behind the message `system` and with `chat_variables`. The other options are those
    of `export_bundle`. Raises `SpecBeamError` (mostly `ExportError`) with the reason and the remedy, and leaves
    nothing behind.
    """
    checks.path(target, "target")  # which `local` takes as it was given
    output = checks.path(output, "output")
    check_flags(chat=chat, checkpoints=checkpoints, overwrite=overwrite)
    checks.whole_number(external_bytes, "external_bytes", 0)
    if not isinstance(precision, str) or precision not in DTYPES:
        raise ExportError(f"The precision {precision!r} is unknown; choose one of {', '.join(DTYPES)}.")
    check_replaceable(output, kind=MANIFEST, replace=overwrite)  # before the work; whole_directory checks again
    source = Checkpoint.open(local(target, "target", progress=progress))
    if source.config.is_encoder_decoder:
        raise ExportError(
            f"{source.directory} is an encoder-decoder; text is generated with decoders alone. Export it for a catalog "
            "of items: specbeam export --catalog."
        )
    variables = dict(chat_variables or {})
    check_chat_only(chat=chat, chat_variables=variables, system=system)
    for note in source.notes:
        progress(note)
    warn = partial(warning, progress)
    with quiet():
        around = compile_text_prompt(prompt, Chat(source.tokenizer, system, variables) if chat else None, warn)
        sample = encoded(source.tokenizer, around, SAMPLES[0])
    warn_of_bos(source.tokenizer, sample, warn)
    progress(f"prompt of {SAMPLES[0]!r}: {shown(source.tokenizer, sample)}")
    with whole_directory(output, kind=MANIFEST, replace=overwrite) as part:
        progress("writing the tokenizer")
        ends = _end_tokens(source)
        tokenizer = _copy_tokenizer(source, part / TOKENIZER_FILE, ends)
        settings = GraphSettings(precision, checkpoints, external_bytes, progress)
        facts = export_model("target", source, None, part / "target", settings)
        progress("hashing its files, and writing the manifest")
        manifest = TextManifest(
            schema_version=SCHEMA_VERSION,
            specbeam_version=__version__,
            precision=precision,  # type: ignore[arg-type]  # checked on entry
            opset=OPSET,
            target=facts,
            prompt=around,
            end_tokens=ends,
            vocabulary=facts.vocabulary,
            tree_path=TREE_PATH,
            tokenizer_sha256=tokenizer,
            files=file_facts(part),
        )
        (part / MANIFEST).write_bytes(sealed(manifest))
    return manifest


def compile_text_prompt(template: str | None, chat: Chat | None, warn: Warn) -> TextPrompt:
    """What stands around a prompt; `warn` as in `Chat.check`. Raises `PromptError` without the place of the prompt."""
    message = PROMPT if template is None else checks.text(template, "prompt")
    if message.count(PROMPT) != 1:
        raise PromptError(f"the template {message!r} holds {PROMPT} {message.count(PROMPT)} times; expected once.")
    if chat is not None:
        chat.check(warn)
        if PROMPT in (chat.system or ""):
            raise PromptError(f"the system message {chat.system!r} holds {PROMPT}, whose place is in the prompt.")
    rendered = message if chat is None else chat.render(message)
    if rendered.count(PROMPT) != 1:
        raise PromptError(f"the chat template changes {PROMPT}: it renders as {rendered!r}; write a literal template.")
    prefix, _, suffix = rendered.partition(PROMPT)
    return TextPrompt(prefix=prefix, suffix=suffix, special=chat is None)


def encoded(tokenizer: PreTrainedTokenizerBase, around: TextPrompt, prompt: str) -> list[int]:
    """A prompt's ids, as `text.TextGenerator` will have them."""
    text = f"{around.prefix}{prompt}{around.suffix}"

    def ids(special: bool) -> list[int]:
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])

    return ids(around.special and adds_special(ids))


def _copy_tokenizer(source: Checkpoint, destination: Path, ends: Sequence[int]) -> str:
    """Copy tokenizer.json, and write beside it what ends a text, for pools; returns its fingerprint.

    Raises `ExportError` where the `tokenizers` library alone does not do as transformers does with it.
    """
    folder = source.directory
    if not (folder / "tokenizer.json").is_file():
        raise ExportError(
            f"{folder} has no tokenizer.json, which text bundles need. Write it with: "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    destination.parent.mkdir(parents=True)
    shutil.copyfile(folder / "tokenizer.json", destination)
    own = source.tokenizer.eos_token_id
    end = own if own in ends or not ends else ends[0]
    names = {} if end is None else {"eos_token": source.tokenizer.convert_ids_to_tokens(end)}
    destination.with_name("tokenizer_config.json").write_text(json.dumps(names, indent=2) + "\n")
    alone = load(destination)
    for text in SAMPLES:
        got, expected = alone.encode(text).ids, source.tokenizer(text)["input_ids"]
        if got != expected:
            raise ExportError(
                f"tokenizer.json of {folder} does not do by itself what transformers does with it: {text!r} is {got} "
                f"instead of {expected}. Write it again with AutoTokenizer.from_pretrained(...).save_pretrained(...)."
            )
    return fingerprint(destination)


def _end_tokens(source: Checkpoint) -> tuple[int, ...]:
    """What ends a text: as `generate` would have it, else the tokenizer's end token."""
    rows = int(source.config.vocab_size)
    found = token_settings(source.base).get("eos_token_id")
    for ends in (found, getattr(source.config, "eos_token_id", None), source.tokenizer.eos_token_id):
        several = ends if isinstance(ends, list | tuple) else [ends]
        known = [int(end) for end in several if end is not None and 0 <= end < rows]
        if known:
            return tuple(sorted(known))
    return ()
