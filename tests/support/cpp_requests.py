"""What the test programs of the C library are asked, and what `Recommender` says to the same."""

import json
from dataclasses import dataclass
from typing import Any, final

from commands import same_items
from specbeam.runtime import EngineChoice, ItemFilter, Recommendation, Recommender, Verification
from tiny_bundle import Tiny

SETTINGS = json.dumps({"threads": 1, "batch_size": 8})


@final
@dataclass(frozen=True)
class Asked:
    """One request, as lists.c and lists.cpp read it."""

    items: list[str]
    k: int = 20
    user: str | None = None
    verification: dict[str, Any] | None = None
    exclude_history: bool = False
    allow: list[str] | None = None
    deny: list[str] | None = None

    def line(self) -> str:
        fields = [
            str(self.k), self.user, self.verification and json.dumps(self.verification), str(int(self.exclude_history)),
            self.allow and " ".join(self.allow), self.deny and " ".join(self.deny), " ".join(self.items),
        ]  # fmt: skip
        return "\t".join(field or "-" for field in fields) + "\n"

    def expected(self, own: Recommender) -> Recommendation:
        ranked = own if self.verification is None else own.verifying(Verification(**self.verification))
        rule = ItemFilter(self.allow, self.deny or []) if self.allow or self.deny else None
        users = None if self.user is None else [self.user]
        [one] = ranked.recommend(
            [self.items], self.k, users=users, item_filter=rule, exclude_history=self.exclude_history
        )
        return one


def recommender(tiny: Tiny) -> Recommender:
    return Recommender.open(tiny.bundle, engine=EngineChoice(threads=1))


def requests(tiny: Tiny, count: int) -> list[Asked]:
    """Strict ones, sampled ones with a seed, and filtered ones, in turns; of some histories items are unknown."""
    ids, found = tiny.item_ids, []
    for number in range(count):
        history, user = [ids[(number * 7 + i) % 40] for i in range(1 + number % 9)], f"u{number}"
        asked = Asked([*history, *(["unknown"] if number % 5 == 0 else [])], 1 + number % 12, user)
        if number % 3 == 1:
            asked = Asked(asked.items, asked.k, user, {"mode": "sampled", "seed": number % 4})
        if number % 3 == 2:
            asked = Asked(asked.items, asked.k, None, None, True, ids[:25] if number % 2 else None, ids[3:7])
        found.append(asked)
    return found


def assert_list(printed: str, one: Recommendation, item_ids: list[str]) -> None:
    """What lists.c prints of a list says the same."""
    unknown, *lines = printed.split("\n")
    assert int(unknown) == one.unknown_items
    read = [line.split("\t") for line in lines]
    found = [
        {"item": id, "title": None if title == "-" else title, "score": float(score), "identifier": tokens.split(" ")}
        for id, title, score, _, tokens in read
    ]
    listed = [{"item": e.item, "title": e.title, "score": e.score, "identifier": list(e.identifier)} for e in one.items]
    assert same_items(found, listed)
    assert [item_ids[int(fields[3])] for fields in read] == [e.item for e in one.items]
