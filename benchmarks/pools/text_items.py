"""Items of the public datasets as the text corpus speaks of them: titles, kinds, descriptions, what is bought."""

import ast
import csv
import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from benchmarks.shared import rows_of

DOMAINS = ("beauty", "games", "office")
ROOTS = {"beauty": "Beauty", "games": "Video Games", "office": "Office Products"}
GENERIC = {"Games", "Accessories", "Consoles", "Kids & Family", "Retro Gaming & Microconsoles"}
COMMON_LABEL = 20  # items that share a category; rarer "categories" of the files are sentences about one item
LABEL = re.compile(r"[A-Z0-9]\S*( ([A-Z0-9&]\S*|&|de))*")  # a category, not a sentence
TITLE_WORDS = 8
OFFICE_KINDS = {  # what a title says -> the kind; the first that fits (office has no categories)
    r"ink|toner": "printer ink", r"fountain": "fountain pens", r"mechanical pencil": "mechanical pencils",
    r"colored pencil": "colored pencils", r"pencil": "pencils", r"marker|sharpie|highlighter": "markers",
    r"gel|ballpoint|pens?": "pens", r"binder|divider|tabs?": "binders and dividers", r"label": "labels",
    r"tape|adhesive|glue": "tape and adhesives", r"calendar|planner": "calendars and planners",
    r"envelope|mailer|shipping": "envelopes and mailers", r"folders?|file|filing": "files and folders",
    r"notebook|journal|pads?|notes": "notebooks and notes", r"staple|punch|clip|clips": "staplers and clips",
    r"calculator": "calculators", r"phone|telephone|handset|headset": "telephones", r"laminat": "laminating",
    r"printer|scanner|shredder": "office machines", r"paper|cardstock": "paper", r"chair|mat|desk|shelf": "furniture",
    r"board|easel|erase": "boards", r"organizer|holder|tray|box|storage": "desk organizers", r"stamp": "stamps",
}  # fmt: skip


class Item(msgspec.Struct, frozen=True):
    """What is known of an item. `area` and `kind` are its widest and its narrowest category."""

    title: str
    area: str
    kind: str
    path: tuple[str, ...]
    description: str = ""

    @property
    def short(self) -> str:
        """The title's first words."""
        return shorten(self.title, TITLE_WORDS)


class World(msgspec.Struct, frozen=True):
    """A domain: its items, its users' histories, and what those say of kinds of items."""

    items: dict[str, Item]
    users: dict[str, list[str]]  # id of a user -> item keys, oldest first
    popular: dict[str, tuple[str, ...]]  # kind -> short titles, the most bought first
    follows: dict[str, tuple[str, ...]]  # kind -> other kinds, those bought next most often first


def shorten(text: str, words: int) -> str:
    """The first words, without what a cut leaves behind."""
    return re.sub(r"([\s,;:(\[&+-]|\b(with|for|of|and|the|by|in|to|a)$)+$", "", " ".join(text.split()[:words]))


def clean(text: str) -> str:
    """A shop's text as plain prose: lists of Python, HTML, style sheets and needless spaces removed."""
    try:
        parts = ast.literal_eval(text) if text.startswith("[") else [text]
    except (SyntaxError, ValueError):
        parts = [text]
    joined = html.unescape(html.unescape(" ".join(map(str, parts))))
    joined = re.sub(r"<!--.*?(-->|$)|<(style|script)\b.*?(</\2>|$)", " ", joined, flags=re.DOTALL | re.IGNORECASE)
    joined = re.sub(r"<[^>]*>|[.#]?[\w.#, -]+\{[^}]*\}|https?://\S+", " ", joined)
    joined = re.sub(r"(?<=[a-z])([.!?])(?=[A-Z])", r"\1 ", joined.replace("amp;quot;", '"'))
    return re.sub(r"\s+", " ", joined).strip()


def cut_sentences(text: str, words: int) -> str:
    """Whole sentences of the text, near this many words at most; "" where not even the first fits."""
    kept: list[str] = []
    seen: set[str] = set()
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z0-9\"])", text):
        if sentence in seen:
            continue
        if len(" ".join([*kept, sentence]).split()) > words:
            break
        seen.add(sentence)
        kept.append(sentence)
    return " ".join(kept)


def description_of(text: str) -> str:
    """A description as the corpus keeps it, or "" where it is empty, too short or not English prose."""
    kept = cut_sentences(clean(text), 120)
    letters = sum(c.isascii() and (c.isalpha() or c.isspace()) for c in kept)
    return kept if len(kept.split()) >= 25 and letters > 0.85 * len(kept) and kept[-1] in ".!?" else ""


def load_world(folder: Path, domain: str) -> World:
    """Read a domain's folder (AtSpeed's files; MiniOneRec's for office)."""
    raw = json.loads((folder / domain / "items.json").read_text())
    if domain == "office":
        items = {key: _office_item(entry) for key, entry in raw.items()}
        users = _office_users(folder / domain)
    else:
        counts = Counter(_label(label) for entry in raw.values() for label in set(entry["categories"]))
        items = {key: _item(entry, counts, ROOTS[domain]) for key, entry in raw.items()}
        users = {user: history for user, history in rows_of(folder / domain, "train").items() if history}
    return World(items, users, *_customs(items, users.values()))


def _label(label: str) -> str:
    return html.unescape(label).replace("; ", " & ")


def _item(entry: dict, counts: Counter[str], root: str) -> Item:
    labels = [_label(label) for label in entry["categories"]]
    common = [label for label in labels if counts[label] >= COMMON_LABEL and LABEL.fullmatch(label)]
    path = tuple(dict.fromkeys(label for label in common if label != root)) or ("Other",)
    named = [label for label in path if label not in GENERIC] or list(path)
    kind = named[-1]
    if path[-1] in GENERIC and path[-1] != kind:
        kind = f"{kind} {path[-1].lower()}"
    features = [cut_sentences(clean(text), 30) for text in labels if text not in common and len(text.split()) > 5]
    prose = " ".join(dict.fromkeys(text if text[-1] in ".!?" else f"{text}." for text in features if text))
    area = named[0] if path[0] in GENERIC else path[0]
    return Item(clean(entry["title"]), area, kind, path, cut_sentences(prose, 45))


def _office_item(entry: dict) -> Item:
    title = clean(entry["title"])
    kind = next((k for word, k in OFFICE_KINDS.items() if re.search(rf"\b({word})", title.lower())), "office supplies")
    area = clean(entry["brand"] or "") or "Unbranded"
    return Item(title, area, kind, (kind,), description_of(entry["description"] or ""))


def _office_users(folder: Path) -> dict[str, list[str]]:
    """The longest history of every user in the validation rows, then of those that are in the test rows alone."""
    users: dict[str, list[str]] = {}
    for part in ("valid", "test"):
        found: dict[str, list[str]] = {}
        with (folder / f"{part}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                history = [str(item) for item in ast.literal_eval(row["history_item_id"])]
                if len(history) > len(found.get(row["user_id"], [])):
                    found[row["user_id"]] = history
        users = found | users
    return users


Customs = dict[str, tuple[str, ...]]


def _customs(items: dict[str, Item], histories: Iterable[Sequence[str]]) -> tuple[Customs, Customs]:
    """(popular, follows) of `World`."""
    bought: dict[str, Counter[str]] = defaultdict(Counter)
    after: dict[str, Counter[str]] = defaultdict(Counter)
    for history in histories:
        for key in history:
            bought[items[key].kind][items[key].short] += 1
        for before, then in pairwise(history):
            if items[before].kind != items[then].kind:
                after[items[before].kind][items[then].kind] += 1
    return tuple(
        {kind: tuple(name for name, _ in c.most_common(3)) for kind, c in of.items()} for of in (bought, after)
    )
