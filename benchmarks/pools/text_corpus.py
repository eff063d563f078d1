"""Prompts and texts about the items and users of the public datasets, to train and to measure text generation on.

The shape is that of the knowledge which LLMs write offline for recommenders (KAR, arXiv 2306.10933; LASER/DARE,
arXiv 2408.05676): descriptions of items, and profiles of users from what they bought. Three kinds of text:

- `description`: an office item's own description, written by people, cleaned and cut at a sentence near 120 words.
- `facts`: of a beauty or games item, from its title, its categories, what the histories say of its kind, and the
  sentences about it that the games data has.
- `profile`: of a user, from the last eight items. What it says (kinds, counts, titles, what usually follows) is
  taken from the data; **its wording comes from templates**, of which there are several for every sentence. Half of
  the choices depend on what the user buys, so that similar users read alike, as they do when an LLM writes; the
  other half on a hash of the id, which no model can foresee.

So this corpus shows how drafting from pools works on text that repeats itself within groups; how much a 7 B model's
text repeats itself, it does not show.

    python -m benchmarks.pools.text_corpus --data DATA --output CORPUS

writes train.jsonl, pool.jsonl and test.jsonl: {"id", "kind", "prompt", "text"} a line. Ids are "beauty-u17" (user
17 of sequential_train.txt), "beauty-i12" (item "12" of index.json). `pool` are prompts whose answers fill pools,
`test` 500 users and 500 items; which is which is decided by a hash of the id.
"""

import hashlib
import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.pools.text_items import DOMAINS, Item, World, load_world
from specbeam.catalog.files import whole_file

SHOWN = 8  # items of a history in a prompt
TEST = {"beauty-u": 200, "games-u": 200, "office-u": 100, "beauty-i": 150, "games-i": 150, "office-i": 200}
POOL = {"beauty-u": 5000, "games-u": 5000, "office-u": 600, "beauty-i": 2500, "games-i": 2500, "office-i": 700}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
SHOPS = {"beauty": "beauty products", "games": "video games", "office": "office products"}


class Entry(msgspec.Struct, frozen=True):
    """One text and the prompt that asks for it."""

    id: str
    kind: str
    prompt: str
    text: str


def number(*words: object) -> int:
    """A number that depends on these words alone."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, words)).encode()).digest()[:6])


def pick(options: Sequence[str], *words: object) -> str:
    """One of the phrasings, by a hash of the words."""
    return options[number(*words) % len(options)]


def listed(names: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def item_prompt(item: Item) -> str:
    """Asks for an item's description."""
    return f"### Item: {item.title}\n### Category: {' > '.join(item.path)}\n### Description:\n"


def user_prompt(domain: str, items: Sequence[Item]) -> str:
    """Asks for a user's profile; `items` are the last ones, oldest first."""
    lines = "".join(f"- {item.short} [{item.kind}]\n" for item in items)
    return f"### Customer of {SHOPS[domain]}, last purchases:\n{lines}### Profile:\n"


def item_facts(key: str, item: Item, world: World) -> str:
    """What titles, categories and histories say of an item."""
    others = [name for name in world.popular.get(item.kind, ()) if name != item.short][:2]
    follows = world.follows.get(item.kind, ())
    parts = [
        pick((
            f"{item.short} is a product of the kind {item.kind}, which belongs to {item.area}.",
            f"This product, {item.short}, is found under {listed(item.path)}.",
            f"{item.short} belongs to {item.area}; more precisely, its kind is {item.kind}.",
        ), "what", item.kind),
        item.description,
    ]  # fmt: skip
    if others:
        parts.append(pick((
            f"Customers who look for {item.kind} often choose {listed(others)} as well.",
            f"The best known products beside it are {listed(others)}.",
            f"It competes with {listed(others)}, which many customers of {item.kind} have bought.",
        ), "others", key))  # fmt: skip
    if follows:
        parts.append(pick((
            f"After buying {item.kind}, customers usually go on to {listed(follows)}.",
            f"It is often bought together with {listed(follows)}, so it can be recommended to customers of those.",
            f"Those who buy it tend to be interested in {listed(follows)} too.",
        ), "follows", item.kind))  # fmt: skip
    return " ".join(filter(None, parts))


def user_profile(key: str, domain: str, items: Sequence[Item], world: World) -> str:
    """What a history says of its user; the phrasing of the first, third and fifth sentence depends on the kinds."""
    kinds = Counter(item.kind for item in items).most_common(3)
    areas = [area for area, _ in Counter(item.area for item in items).most_common(2)]
    top, last = kinds[0][0], items[-1]
    counts = listed([f"{NUMBERS[count]} of the kind {kind}" for kind, count in kinds])
    follows = world.follows.get(top, ()) or (top,)
    popular = world.popular.get(last.kind, ())[:2]
    named = listed([kind for kind, _ in kinds])
    sentences = (
        pick((
            f"This customer is mainly interested in {listed(areas)}, and above all in {top}.",
            f"The purchases show a clear preference for {listed(areas)}, with {top} in the first place.",
            f"We see a customer of {SHOPS[domain]} whose main interest is {top}, from {listed(areas)}.",
            f"From the history we can conclude that the customer likes {listed(areas)} and often looks for {top}.",
        ), "interest", top),
        pick((
            f"Of the last {NUMBERS[len(items)]} purchases, there are {counts}.",
            f"Among the {NUMBERS[len(items)]} most recent items we count {counts}.",
            f"The last {NUMBERS[len(items)]} items comprise {counts}.",
        ), "counts", key),
        pick((
            f"The most recent purchase was {last.short}, which points to a current need for {last.kind}.",
            f"Most recently the customer bought {last.short}; at the moment the interest is in {last.kind}.",
            f"The latest item is {last.short}, so that {last.kind} should be given more weight than older interests.",
        ), "last", last.kind),
        _breadth(key, kinds, len(items), named),
        pick((
            f"Customers who buy {top} usually continue with {listed(follows)}.",
            f"In general, people with an interest in {top} are also open to {listed(follows)}.",
            f"Other customers with this preference for {top} have later chosen {listed(follows)}.",
        ), "follows", top),
        pick((
            f"A suitable recommendation would be {listed(popular)}, or something else of the kind {last.kind}.",
            f"The next item could well be of the kind {last.kind}, for example {listed(popular)}.",
            f"We would recommend {last.kind} next, such as {listed(popular)}.",
        ), "next", key) if popular else "",
    )  # fmt: skip
    return " ".join(filter(None, sentences))


def _breadth(key: str, kinds: Sequence[tuple[str, int]], shown: int, named: str) -> str:
    """Whether a user is faithful to one kind or looks around."""
    if kinds[0][1] * 2 > shown:
        return pick((
            f"The customer is faithful to {kinds[0][0]} and rarely tries anything else.",
            f"More than half of the purchases are {kinds[0][0]}, which suggests a stable and focused taste.",
        ), "breadth", key)  # fmt: skip
    return pick((
        f"The interests are broad, covering {named}, and new kinds of products are welcome.",
        f"With {named} in one history, the customer likes to try different things.",
    ), "breadth", key)  # fmt: skip


def entries_of(domain: str, world: World) -> Iterator[Entry]:
    """All texts of a domain; items without a description are left out where there are no categories either."""
    for key, item in world.items.items():
        if domain != "office":
            yield Entry(f"{domain}-i{key}", "facts", item_prompt(item), item_facts(key, item, world))
        elif item.description:
            yield Entry(f"{domain}-i{key}", "description", item_prompt(item), item.description)
    for user, history in world.users.items():
        items = [world.items[key] for key in history[-SHOWN:] if key in world.items]
        if len(items) >= 2:
            key = f"{domain}-u{user}"
            yield Entry(key, "profile", user_prompt(domain, items), user_profile(key, domain, items, world))


def split(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """test, pool and train, in an order that depends on the ids alone."""
    parts: dict[str, list[Entry]] = {"train": [], "pool": [], "test": []}
    seen: Counter[str] = Counter()
    for entry in sorted(entries, key=lambda entry: number("split", entry.id)):
        group = entry.id[: entry.id.index("-") + 2]
        rank, seen[group] = seen[group], seen[group] + 1
        part = "test" if rank < TEST[group] else "pool" if rank < TEST[group] + POOL[group] else "train"
        parts[part].append(entry)
    return parts


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with beauty/, games/ and office/")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.jsonl, pool.jsonl, test.jsonl")
    options = parser.parse_args()
    entries = [entry for domain in DOMAINS for entry in entries_of(domain, load_world(options.data, domain))]
    for part, chosen in split(entries).items():
        with whole_file(options.output / f"{part}.jsonl", replace=True) as file:
            file.writelines(msgspec.json.encode(entry) + b"\n" for entry in chosen)
        words = sum(len(entry.text.split()) for entry in chosen) / max(1, len(chosen))
        print(part, json.dumps(Counter(entry.kind for entry in chosen)), f"{words:.0f} words a text")


if __name__ == "__main__":
    main()
