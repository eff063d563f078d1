"""A made-up catalog of any size: index.json, items.json and a table, and its bundle, without models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from specbeam.catalog.prompts.encoder import PromptSpec
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.bundle.checksums import file_facts
from specbeam.engines.bundle.facts import ModelFacts
from specbeam.engines.bundle.items import Manifest
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import SCHEMA_VERSION, sealed

LEVELS, CODES = 4, 1024
FIRST_TOKEN = 10  # ids of the catalog's tokens begin here
PIECE = 200_000  # items that are written at a time
PROMPT = PromptSpec(
    template="{history}", separator="", prefix_ids=(1,), separator_ids=(), suffix_ids=(2,), history_length=20
)
MODEL = ModelFacts(
    architecture="LlamaForCausalLM", parameters=9, layers=1, kv_heads=1, head_dim=4,
    vocabulary=FIRST_TOKEN + LEVELS * CODES, context=512,
)  # fmt: skip


def tokens() -> list[str]:
    """The strings of identifiers: <a_0> to <d_1023>."""
    return [f"<{'abcd'[level]}_{code}>" for level in range(LEVELS) for code in range(CODES)]


class Vocabulary:
    """As much of a tokenizer as looking identifiers up takes."""

    bos_token = eos_token = None
    all_special_tokens: tuple[str, ...] = ()

    def get_vocab(self) -> dict[str, int]:
        return {token: FIRST_TOKEN + number for number, token in enumerate(tokens())}

    get_added_vocab = get_vocab


def rows(items: int, first: int = CODES) -> Iterator[np.ndarray]:
    """Identifiers as places in `tokens`, piece by piece [n, LEVELS].

    first: codes of the first level that are used; where they are not all, each of them goes on as each of a large
    catalog's does, by every code of the second.
    """
    rng = np.random.default_rng(0)
    for start in tqdm(range(0, items, PIECE), desc="items", disable=None):
        count = min(PIECE, items - start)
        codes = rng.integers(0, CODES, (count, LEVELS))
        if first < CODES:
            codes[:, 1], codes[:, 0] = np.divmod(start + np.arange(count), first)
            codes[:, 1] %= CODES
        yield np.arange(LEVELS) * CODES + codes


def write(folder: Path, items: int, first: int = CODES) -> None:
    """index.json, items.json and items.parquet of the same catalog; first: as of `rows`."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True)
    names, at, table = np.array(tokens(), object), 0, None
    with (folder / "index.json").open("w") as index, (folder / "items.json").open("w") as described:
        for piece in rows(items, first):
            ids = [f"B{number:09d}" for number in range(at, at + len(piece))]
            titles = [f"Article {number} of the season" for number in range(at, at + len(piece))]
            strings = names[piece].tolist()
            glue = ", " if at else ""
            index.write(("{" if not at else glue) + ", ".join(
                f'"{i}": ["{a}", "{b}", "{c}", "{d}"]' for i, (a, b, c, d) in zip(ids, strings, strict=True)
            ))  # fmt: skip
            described.write(("{" if not at else glue) + ", ".join(
                f'"{i}": {{"title": "{title}", "brand": "None"}}' for i, title in zip(ids, titles, strict=True)
            ))  # fmt: skip
            batch: Any = pa.table({"item": ids, "identifier": strings, "title": titles})
            table = table or parquet.ParquetWriter(folder / "items.parquet", batch.schema)
            table.write_table(batch)
            at += len(piece)
        index.write("}")
        described.write("}")
    assert table is not None
    table.close()


def seal(folder: Path, trie: ItemTrie) -> None:
    """The manifest of a bundle whose catalog was written."""
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, specbeam_version="0", precision="fp32", scoring="full", opset=23, target=MODEL,
        draft=None, prompt=PROMPT, items=len(trie.item), identifiers=trie.identifiers, identifier_length=trie.length,
        end_token=None, catalog_tokens=len(trie.vocabulary), max_prompt_tokens=MODEL.context - LEVELS + 1,
        max_top_k=1000, files=file_facts(folder),
    )  # fmt: skip
    (folder / MANIFEST).write_bytes(sealed(manifest))
