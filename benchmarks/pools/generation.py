"""Text from pools: tokens a target call, tokens a second and where the time goes, by pool, group and pool size.

The prompts of CORPUS/test.jsonl (text_corpus.py) are answered by every kind of drafting in turns of a few prompts, so
that all share the machine's moods; pools are of TEXTS, what the model itself wrote for CORPUS/pool.jsonl:

    specbeam generate BUNDLE CORPUS/pool.jsonl --output TEXTS --max-new-tokens 200

Profiles of users draft from groups of users (SVD of the histories, k-means), texts on items from groups by category.
Strict texts are compared with plain greedy decoding, token for token.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from tqdm import tqdm

from benchmarks.shared import dump, print_table, shared_data
from specbeam.catalog.errors import PoolError
from specbeam.catalog.hashing import text_key
from specbeam.catalog.histories.read import read_histories
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.engines.bundle.texts import TextBundle
from specbeam.pools.groups.items import group_by_category, group_by_title, read_items
from specbeam.pools.groups.users import at_random, group_users
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.pool import TextPool
from specbeam.pools.texts.read import TextLine, encode, read_texts
from specbeam.pools.texts.tokenizer import load
from specbeam.runtime import EngineChoice
from specbeam.text import TextDrafting, TextGenerator, TextVerification
from specbeam.text.types import Text

VERIFICATIONS = {"strict": TextVerification(), "relaxed": TextVerification("relaxed")}
HEAD = [
    "drafts from", "texts in the pool", "verification", "speculation", "tokens a call", "tokens/s",
    "retrieval ms a call", "retrieval / target / verification", "same as greedy",
]  # fmt: skip
KINDS = ["profile", "facts", "description"]
TURN = 10  # prompts that one kind of drafting answers before the next one's turn


class Entry(msgspec.Struct, frozen=True):
    id: str
    kind: str
    prompt: str


@dataclass
class Arm:
    """One kind of drafting, and what it wrote."""

    pool: str
    size: int | None
    verification: str
    speculation: str
    generator: TextGenerator
    groups: Mapping[str, str]  # id to group
    texts: dict[str, Text] = field(default_factory=dict)

    def write(self, entries: Sequence[Entry], most: int) -> None:
        groups = [self.groups.get(entry.id) for entry in entries]
        prompts = [entry.prompt for entry in entries]
        texts = self.generator.generate(prompts, max_new_tokens=most, groups=groups)
        self.texts |= {entry.id: text for entry, text in zip(entries, texts, strict=True)}

    def row(self, greedy: Mapping[str, Text]) -> list[str]:
        stats = self.generator.stats
        same = sum(text.tokens == greedy[id].tokens for id, text in self.texts.items())
        parts = (stats.retrieval_seconds, stats.target_seconds, stats.verification_seconds + stats.cache_seconds)
        split = " / ".join(f"{part / stats.total_seconds:.0%}" for part in parts)
        retrieval = 1000 * stats.retrieval_seconds / max(stats.target_calls, 1)
        return [
            self.pool, "" if self.size is None else f"{self.size:,}", self.verification, self.speculation,
            f"{stats.tokens_per_call:.2f}", f"{stats.tokens / stats.total_seconds:.0f}", f"{retrieval:.2f}", split,
            f"{same} of {len(self.texts)}",
        ]  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="text bundle with an engine")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that text_corpus.py wrote")
    parser.add_argument("--texts", type=Path, required=True, help="what the model wrote for CORPUS/pool.jsonl")
    parser.add_argument("--work", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--prompts", type=int, default=500, help="of each kind of work")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 2000, 10_000], help="texts in the pools")
    parser.add_argument("--arms", nargs="+", help="only these (the first column), and nothing")
    parser.add_argument("--verify", nargs="+", choices=list(VERIFICATIONS), default=list(VERIFICATIONS))
    parser.add_argument("--groups", type=int, default=3, help="groups of users in each shop")
    parser.add_argument("--speculation", nargs="+", choices=["fixed", "auto"], default=["fixed"])
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="results as JSON")
    return parser.parse_args()


def user_groups(data: Path, shop: str, groups: int) -> dict[str, str]:
    """Users of one shop by their histories; ids and names begin with the shop's."""
    train = data / shop / "sequential_train.txt"
    if not train.exists():  # office has no histories for training: one group
        return {}
    entries = (e for e in read_histories([train], item_base=1) if isinstance(e, HistoryRequest))
    return {f"{shop}-u{user}": f"{shop} {name}" for user, name in group_users(entries, "svd", groups).groups.items()}


def item_groups(data: Path, shop: str) -> dict[str, str]:
    """Items of one shop by category, or where there is none by title."""
    items = read_items(data / shop / "items.json")
    found = group_by_title(items).groups if shop == "office" else group_by_category(items).groups
    return {f"{shop}-i{item}": f"{shop} {name}" for item, name in found.items()}


def read(path: Path) -> list[Entry]:
    with path.open("rb") as file:
        return [msgspec.json.decode(line, type=Entry) for line in file]


def pools(
    texts: Sequence[TextLine], groups: Mapping[str, str], sizes: Sequence[int], bundle: TextBundle, folder: Path
) -> Iterator[tuple[str, int, TextPool, Mapping[str, str]]]:
    """Pools of the first so many texts: of all, of random groups and of the groups."""
    tokenizer = load(bundle.tokenizer_file())
    (end,) = bundle.manifest.end_tokens
    ids = sorted({text.id for text in texts} | groups.keys())
    drawn = at_random(ids, len(set(groups.values())), 0, PoolError, "ids")
    random = {id: f"random {name}" for id, name in drawn.items()}
    for size in sizes:
        chosen = texts[:size]
        for name, grouping in (("global", {}), ("random groups", random), ("groups", groups)):
            own = {text.id: grouping[text.id] for text in chosen if text.id in grouping}
            path = folder / f"{name} {size}"
            build_text_pool(
                encode(chosen, tokenizer, end), path, tokenizer_sha256=bundle.manifest.tokenizer_sha256,
                reach=TextDrafting().reach, groups=own,
            )  # fmt: skip
            yield name, len(chosen), TextPool.open(path), {i: g for i, g in grouping.items() if g in own.values()}


def arms(options: argparse.Namespace, work: str, data: Path, bundle: TextBundle, folder: Path) -> list[Arm]:
    """Every kind of drafting that is compared; the first is plain greedy decoding."""
    shops = ("beauty", "games", "office")
    groups = {
        id: name
        for shop in shops
        for id, name in (
            user_groups(data, shop, options.groups) if work == "profile" else item_groups(data, shop)
        ).items()
    }
    asked = {entry.id for entry in read(options.corpus / "pool.jsonl") if entry.kind == work}
    texts = [line for line in read_texts([options.texts]) if isinstance(line, TextLine) and line.id in asked]
    texts.sort(key=lambda line: text_key(str(line.id)))
    opened = partial(
        TextGenerator.open, bundle, engine=EngineChoice(threads=options.threads), batching=options.batch_size
    )
    found = [Arm("nothing", None, "strict", "", opened(drafting=None), {})]
    for verification, rule in VERIFICATIONS.items():
        for speculation in options.speculation:
            drafted = partial(opened, verification=rule, speculation=speculation)
            found.append(Arm("its own prompt and text", None, verification, speculation, drafted(live=False), {}))
            found.append(Arm("and what was written", None, verification, speculation, drafted(), {}))
    for name, size, pool, own in pools(texts, groups, options.sizes, bundle, folder):
        if name == "groups" and size == min(max(options.sizes), len(texts)):
            for verification, rule in VERIFICATIONS.items():
                laser = opened(
                    verification=rule, speculation="fixed", pool=pool, live=False, drafting=TextDrafting(query=2)
                )
                found.append(Arm("groups, looking up 2 tokens as LASER does", size, verification, "fixed", laser, own))
        for verification, rule in VERIFICATIONS.items():
            for speculation in options.speculation:
                generator = opened(verification=rule, speculation=speculation, pool=pool, live=False)
                found.append(Arm(name, size, verification, speculation, generator, own))
    return [
        arm
        for number, arm in enumerate(found)
        if number == 0 or (arm.verification in options.verify and arm.pool in (options.arms or {arm.pool}))
    ]


def main() -> None:
    chosen = options()
    shared = shared_data()
    if shared is None:
        raise SystemExit("The data/ folder is absent: name the folder that holds it in SPECBEAM_DATA.")
    bundle, result = TextBundle.open(chosen.bundle), {}
    for work in chosen.work:
        entries = [entry for entry in read(chosen.corpus / "test.jsonl") if entry.kind == work]
        entries = sorted(entries, key=lambda entry: text_key(entry.id))[: chosen.prompts]
        with tempfile.TemporaryDirectory() as folder:
            compared = arms(chosen, work, shared / "data", bundle, Path(folder))
            for start in tqdm(range(0, len(entries), TURN), desc=work, disable=None):
                for arm in compared:
                    arm.write(entries[start : start + TURN], chosen.max_new_tokens)
        ended = sum(text.finish == "end" for text in compared[0].texts.values())
        print(f"\n{work}: {len(entries)} prompts, batch {chosen.batch_size}; {ended} greedy texts end by themselves\n")
        rows = [arm.row(compared[0].texts) for arm in compared]
        print_table(HEAD, rows)
        result[work] = [dict(zip(HEAD, row, strict=True)) for row in rows]
    dump(chosen.output, result)


if __name__ == "__main__":
    main()
