"""What the benchmarks and the tests share: `generate` with the item trie as the truth, real users, and tables."""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specrec.catalog.trie import ItemTrie
from specrec.runtime import Recommendation

Ranked = list[tuple[int, float]]  # (leaf, score), best first


def shared_data() -> Path | None:
    """The folder with data/ and models/, or None: SPECREC_DATA, else ../shared beside the repository."""
    folder = Path(os.environ.get("SPECREC_DATA", Path(__file__).resolve().parents[2] / "shared"))
    return folder if (folder / "data").is_dir() and (folder / "models").is_dir() else None


def real_users(folder: Path) -> tuple[list[str], list[list[str]], list[set[str]]]:
    """AtSpeed's test users: their numbers, histories (train, then valid) and labels, as keys of index.json."""
    rows: dict[str, dict[str, list[str]]] = {}
    for part in ("train", "valid", "test"):
        for line in (folder / f"sequential_{part}.txt").read_text().splitlines():
            user, *items = line.split()
            rows.setdefault(user, {})[part] = [str(int(item) - 1) for item in items]
    users = [user for user, parts in rows.items() if parts.get("test")]
    histories = [rows[user].get("train", []) + rows[user].get("valid", []) for user in users]
    return users, histories, [set(rows[user]["test"]) for user in users]


class TrieGenerate:
    """`generate` by beam search under the strict item trie, batch 1: the baseline and the truth."""

    def __init__(self, model: Any, trie: ItemTrie) -> None:
        self._model, self._trie = model.eval(), trie
        self._allowed: dict[tuple[int, ...], list[int]] = {}
        self._leaf: dict[tuple[int, ...], int] = {}
        paths: dict[int, tuple[int, ...]] = {0: ()}
        for node in range(len(trie.parent)):
            if node:
                paths[node] = (*paths[int(trie.parent[node])], int(trie.vocabulary[trie.column[node]]))
            first, count = int(trie.first_child[node]), int(trie.child_count[node])
            if count:
                self._allowed[paths[node]] = trie.tokens(np.arange(first, first + count)).tolist()
            else:
                self._leaf[paths[node]] = node

    def __call__(self, prompt: np.ndarray, k: int) -> Ranked:
        """The k best leaves for one prompt [P]; fewer where the catalog has fewer."""
        start, width = len(prompt), min(k, self._trie.identifiers)
        ids = torch.from_numpy(np.asarray(prompt, np.int64))[None]
        with torch.inference_mode():
            out = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                num_beams=width,
                num_return_sequences=width,
                max_new_tokens=self._trie.length,
                do_sample=False,
                length_penalty=0.0,
                early_stopping=False,
                eos_token_id=None,
                pad_token_id=0,
                use_cache=True,
                return_dict_in_generate=True,
                output_scores=width > 1,
                output_logits=width == 1,
                prefix_allowed_tokens_fn=lambda _, tokens: self._allowed[tuple(tokens[start:].tolist())],
            )
        if width == 1:  # greedy search returns no sequence scores
            chosen = out.sequences[0, start:].tolist()
            rows = [logits[0].float().log_softmax(-1) for logits in out.logits]
            scores = [sum(row[token].item() for row, token in zip(rows, chosen, strict=True))]
        else:
            scores = out.sequences_scores.tolist()
        leaves = [self._leaf[tuple(sequence[start:].tolist())] for sequence in out.sequences]
        return list(zip(leaves, scores, strict=True))


def ranking_fault(got: Sequence[tuple[object, float]], expected: Sequence[tuple[object, float]]) -> str | None:
    """Why two rankings are not the same, or None.

    Scores must agree within 1e-3. Entries whose expected scores differ by less than 1e-4 may swap, the
    last with one beyond the end as well.
    """
    if len(got) != len(expected):
        return f"{len(got)} entries, expected {len(expected)}"
    for rank, ((a, score_a), (b, score_b)) in enumerate(zip(got, expected, strict=True)):
        if abs(score_a - score_b) > 1e-3:
            return f"rank {rank + 1}: {a} scores {score_a:.6f}, expected {b} with {score_b:.6f}"
        if a != b:
            near = [entry for entry, score in expected if abs(score - score_b) < 1e-4]
            if a not in near and abs(score_b - expected[-1][1]) >= 1e-4:
                return f"rank {rank + 1}: {a} with {score_a:.6f}, expected {b} with {score_b:.6f}"
    return None


def as_ranked(result: Recommendation) -> list[tuple[tuple[str, ...], float]]:
    """A recommendation's distinct identifiers with their scores, in order."""
    return list({item.identifier: item.score for item in result.items}.items())


def leaf_identifiers(trie: ItemTrie, identifiers: Sequence[tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """The identifier's strings of every leaf."""
    first = int(trie.level_start[trie.length])
    return {first + j: identifiers[int(item)] for j, item in enumerate(trie.leaf_item[trie.leaf_offset[:-1]])}


def dump(path: str | None, result: object) -> None:
    """Write a benchmark's result as JSON, if a path is given."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")


def beauty_bundle(shared: Path, bundle: Path | None) -> Path:
    """The beauty pair, exported and built for this machine: at `bundle` if that is there, else made (there)."""
    from specrec.engines.build import build_engine
    from specrec.export import export_bundle

    bundle = bundle or Path(tempfile.mkdtemp(prefix="specrec-bench-")) / "beauty"
    if not bundle.exists():
        pair, data = shared / "models/beauty", shared / "data/beauty"
        export_bundle(pair / "target", pair / "draft", data / "index.json", data / "items.json", bundle)
        build_engine(bundle)
    return bundle


def arguments(
    description: str | None,
    users: int | None,
    more: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> argparse.Namespace:
    """The options that every benchmark has, and `more`; exits with the reason where the data is absent."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--bundle", type=Path, help="exported and built beauty bundle; made there if absent")
    parser.add_argument("--users", type=int, default=users, help="how many test users (default: %(default)s)")
    parser.add_argument("--top-k", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--threads", type=int, help="of each engine (default: all processors)")
    parser.add_argument("--engine", help="of the bundle (default: the only one built)")
    parser.add_argument("--output", help="write the result as JSON")
    more(parser)
    options = parser.parse_args()
    options.shared = shared_data()
    if options.shared is None:
        parser.exit(2, "The data/ and models/ folders are absent: name the folder that holds them in SPECREC_DATA.\n")
    options.bundle = beauty_bundle(options.shared, options.bundle)
    return options


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(f"{x:.2f}" if isinstance(x, float) else str(x) for x in row) + " |", flush=True)
