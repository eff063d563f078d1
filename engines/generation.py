"""A checkpoint's generation_config.json: the end of a text is taken from it, and nothing else."""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..catalog.errors import BundleError
from ..catalog.records import read_json

FILE = "generation_config.json"
TokenId = Annotated[int, msgspec.Meta(ge=0)]
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What changes the lists of a beam search or a greedy text, and the values with which it does not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1,), "encoder_repetition_penalty": (1,), "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,), "bad_words_ids": ([],), "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],), "sequence_bias": ({}, []), "forced_bos_token_id": (), "forced_eos_token_id": (),
    "min_length": (0,), "min_new_tokens": (0,), "exponential_decay_length_penalty": (), "length_penalty": (0, 1),
    "guidance_scale": (1,), "renormalize_logits": (False,), "watermarking_config": (), "stop_strings": ([], ""),
    "do_sample": (False,),
}  # fmt: skip
# These do where it samples.
SAMPLING: dict[str, tuple[Any, ...]] = {
    "temperature": (1,), "top_k": (0,), "top_p": (1,), "min_p": (0,), "top_h": (), "typical_p": (1,),
    "epsilon_cutoff": (0,), "eta_cutoff": (0,),
}  # fmt: skip


def generation_settings(directory: Path) -> dict[str, Any]:
    """What a checkpoint says of `generate` (older ones in config.json); nothing where that cannot be read.

    No list depends on it, so that a file which is damaged or contradicts itself is no reason to refuse a model.
    """
    file = directory / FILE
    try:
        return read_json(file if file.is_file() else directory / "config.json", dict[str, Any], "", BundleError)[0]
    except BundleError:
        return {}


def token_settings(directory: Path) -> dict[str, Any]:
    """The token ids among them that are some: `TOKENS` to an id, of eos or several."""
    settings = generation_settings(directory)
    return {name: settings[name] for name in TOKENS if _is_token(settings.get(name), several=name == "eos_token_id")}


def not_applied(directory: Path) -> dict[str, Any]:
    """The settings that would change what is generated, and that search does not apply."""
    settings = generation_settings(directory)
    names = {**NEUTRAL, **(SAMPLING if settings.get("do_sample") else {})}
    return {
        name: settings[name]
        for name, neutral in names.items()
        if settings.get(name) is not None and settings[name] not in neutral
    }


def _is_token(value: Any, *, several: bool) -> bool:
    try:
        msgspec.convert(value, list[TokenId] | TokenId if several else TokenId)
    except msgspec.ValidationError:
        return False
    return bool(value != [])
