"""Pairs of random weights for made-up catalogs, exported and built as any pair is, and kept in a folder.

The target has the shape of the public pairs (`alignment.train_pair`); the draft is its first layer under its own
embedding and head, which agrees with it to some degree. Identifiers branch at every depth: an item has the first
codes of an earlier one, as many as chance will have it, and codes of its own behind them.
"""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.export import export_bundle
from tiny_models import WORDS, make_tokenizer

ITEMS = 3000
LONGEST = 400  # tokens of a prompt
CODES = {3: 64, 4: 64}  # of a level, by levels
FEW_CODES = 16  # of a level, where there are more levels
SHARPNESS = 4.0  # times the head's random weights: scores that are apart, as a trained model's are


def identifiers(levels: int, rng: np.random.Generator, codes: int | None = None) -> list[list[str]]:
    """Different identifiers of so many levels; codes: of a level."""
    codes, chosen = codes or CODES.get(levels, FEW_CODES), dict[tuple[int, ...], None]()
    while len(chosen) < ITEMS:
        earlier = list(chosen)[-1 - int(rng.integers(len(chosen)))] if chosen else ()
        shared = int(rng.integers(levels))
        chosen[(*earlier[:shared], *rng.integers(0, codes, levels - len(earlier[:shared])).tolist())] = None
    return [[f"<{level}_{code}>" for level, code in enumerate(row)] for row in chosen]


def checkpoints(folder: Path, tokens: list[str], settings: dict[str, Any]) -> None:
    """target/ and draft/ of random weights, and their tokenizer; settings: of the target, besides its shape."""
    tokenizer = make_tokenizer(tokens)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": 512, "tie_word_embeddings": False,
        "num_hidden_layers": 6, "bos_token_id": WORDS.index("<s>"), "eos_token_id": WORDS.index("</s>"), **settings,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        target = LlamaForCausalLM(LlamaConfig(**shape))
    with torch.no_grad():
        target.get_output_embeddings().weight.mul_(SHARPNESS)
    draft = LlamaForCausalLM(LlamaConfig(**{**shape, "num_hidden_layers": 1}))
    draft.load_state_dict(target.state_dict(), strict=False)
    for name, model in (("target", target), ("draft", draft)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def made_pair(work: Path, levels: int, threads: int) -> Bundle:
    """The bundle of a catalog of so many levels, in `work`; made there if absent."""
    named = identifiers(levels, np.random.default_rng(levels))
    return kept_pair(work / f"levels-{levels}-threads-{threads}", named, threads)


def kept_pair(
    folder: Path, named: Sequence[Sequence[str]], threads: int, *, scoring: str = "full", **settings: Any
) -> Bundle:
    """The bundle of a catalog with these identifiers, in `folder`; made there if absent. settings: of the target."""
    bundle = folder / "bundle"
    if not (bundle / "engines").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints(folder, sorted({token for identifier in named for token in identifier}), settings)
        (folder / "index.json").write_text(json.dumps(dict(zip(map(str, range(len(named))), named, strict=True))))
        export_bundle(
            folder / "target", folder / "draft", folder / "index.json", None, bundle, scoring=scoring,
            history_length=LONGEST // len(named[0]) + 2, checkpoints=False, overwrite=True,
        )  # fmt: skip
        build_engine(bundle, threads=threads)
    return Bundle.open(bundle)


def made_parser(description: str | None) -> ArgumentParser:
    """The options of every benchmark that makes its pairs; those of its own are added to them."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the pairs for another run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", help="write the result as JSON")
    return parser
