"""Does relaxed text hurt what is built on it? A click model on embeddings of the text, with each kind of text.

LASER/DARE (arXiv 2408.05676) holds that relaxed verification changes the text, but not the click-through rate model
that reads it. Here a model tells the items which a user bought later from others, by logistic regression on the
popularity of the item, the embeddings of the user's and of the item's text (TF-IDF and truncated SVD, fitted once on
all texts together), their product and their cosine. An item's text is its title and categories, and what a file says
of it, if anything. AUC is of users held out of the fit (5 folds), with 95 % intervals by drawing users anew, the same
draws for all texts; models are not fitted anew. Controls: no user text, and everybody with the text of somebody else.

    python -m benchmarks.pools.text_downstream --data DATA/beauty --prefix beauty- \
        strict=STRICT.jsonl relaxed=RELAXED.jsonl

Files hold {"id": "beauty-u17", "text": ...} a line: what was written of user 17 from the *training* history (users
"u", items "i"). A user counts who is in all files and bought something later that was known in training. Items not
bought are drawn evenly, or as often as users bought them in the held-out period, so that popularity says nothing.
"""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from specbeam.catalog.histories.dataset import Dataset
from specbeam.runtime.metrics import estimate

FOLDS = 5
REGULARISATION = 0.01  # C of the regression; from 0.001 to 0.1 the AUC differs by less than 0.005
Texts = Mapping[str, str]
Scores = dict[str, np.ndarray]


class Line(msgspec.Struct):
    """One text; other keys are ignored."""

    id: str
    text: str


class Item(msgspec.Struct):
    """What items.json says of an item."""

    title: str = ""
    categories: list[str] = []


@dataclass(frozen=True)
class Shop:
    """Items known in training, and what users bought later."""

    items: list[str]
    titles: list[str]  # with categories
    bought: np.ndarray  # [I] times, in training
    users: dict[str, tuple[set[int], set[int]]]  # bought later, had before: places in `items`


@dataclass(frozen=True)
class Pairs:
    """A user, an item, and whether the one bought the other: [N] each."""

    user: np.ndarray
    item: np.ndarray
    clicked: np.ndarray


def read_texts(path: Path, prefix: str) -> Texts:
    """Id without its prefix ("u17", "i12") to text."""
    decoder = msgspec.json.Decoder(Line)
    lines = map(decoder.decode, path.read_bytes().splitlines())
    return {line.id.removeprefix(prefix): line.text for line in lines if line.id.startswith(prefix)}


def open_shop(folder: Path) -> Shop:
    """Items that nobody bought in training are left out: that nobody did would give the later ones away."""
    data = Dataset.open(folder)
    known = msgspec.json.decode((folder / "items.json").read_bytes(), type=dict[str, Item])
    counts = np.bincount(np.concatenate(data.train), minlength=len(data.catalog.item_ids))
    warm = np.flatnonzero(counts)
    items = [data.catalog.item_ids[place] for place in warm]
    place = {item: number for number, item in enumerate(items)}
    users: dict[str, tuple[set[int], set[int]]] = {}
    for example in (*data.valid, *data.test):
        later, before = users.setdefault(example.user, (set(), set()))
        later |= {place[item] for item in example.labels if item in place}
        before |= {place[item] for item in example.history if item in place}
    titles = [" ".join([known[item].title, *known[item].categories]) if item in known else "" for item in items]
    return Shop(items, titles, counts[warm], users)


def draw_pairs(shop: Shop, users: Sequence[str], negatives: int, popular: bool, seed: int) -> Pairs:
    """What each user bought later, and `negatives` items for each that the user never bought."""
    rng = np.random.default_rng(seed)
    chance = np.zeros(len(shop.items))
    for later, _ in shop.users.values():
        chance[list(later)] += 1
    chance = chance / chance.sum() if popular else np.full(len(chance), 1 / len(chance))
    rows: list[tuple[int, int, bool]] = []
    for number, user in enumerate(users):
        later, before = shop.users[user]
        allowed = chance.copy()
        allowed[list(later | before)] = 0
        drawn = rng.choice(len(chance), negatives * len(later), p=allowed / allowed.sum())
        rows += [(number, item, True) for item in sorted(later)] + [(number, item, False) for item in drawn.tolist()]
    return Pairs(*map(np.array, zip(*rows, strict=True)))


def embeddings(texts: Sequence[Sequence[str]], dimension: int) -> list[np.ndarray]:
    """[n, D] directions for every list of texts, in one space."""
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english")
    embed = make_pipeline(words, TruncatedSVD(dimension, random_state=0), Normalizer())
    rows = embed.fit_transform([text for part in texts for text in part])
    return np.split(rows, np.cumsum([len(part) for part in texts])[:-1])


def clicks(pairs: Pairs, popularity: np.ndarray, of_user: np.ndarray | None, of_item: np.ndarray) -> np.ndarray:
    """[N] the probability of each pair by a model that has not seen its user."""
    item = of_item[pairs.item]
    parts = [popularity[pairs.item, None], item]
    if of_user is not None:
        user = of_user[pairs.user]
        parts += [user, user * item, (user * item).sum(axis=1, keepdims=True)]
    features, predicted = np.hstack(parts), np.empty(len(item))
    for known, new in GroupKFold(FOLDS, shuffle=True, random_state=0).split(features, groups=pairs.user):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=1000))
        predicted[new] = model.fit(features[known], pairs.clicked[known]).predict_proba(features[new])[:, 1]
    return predicted


def aucs(pairs: Pairs, predicted: Scores, resamples: int, seed: int) -> Scores:
    """[1 + resamples] AUC over all pairs: of the users as they are, then of users drawn with replacement."""
    rng, users = np.random.default_rng(seed), int(pairs.user.max()) + 1
    times = [np.bincount(rng.integers(0, users, users), minlength=users) for _ in range(resamples)]
    weights = [np.ones(len(pairs.user)), *(drawn[pairs.user] for drawn in times)]
    return {
        name: np.array([roc_auc_score(pairs.clicked, scores, sample_weight=weight) for weight in weights])
        for name, scores in predicted.items()
    }


def predictions(shop: Shop, users: Sequence[str], texts: Mapping[str, Texts], pairs: Pairs, dimension: int) -> Scores:
    """[N] probabilities with every kind of text, and with the controls, which are made from the first kind."""
    of_users = [[of[f"u{user}"] for user in users] for of in texts.values()]
    of_items = [
        [f"{title} {of.get(f'i{item}', '')}" for item, title in zip(shop.items, shop.titles, strict=True)]
        for of in texts.values()
    ]
    vectors = embeddings([*of_users, *of_items], dimension)
    by_user, by_item = vectors[: len(texts)], vectors[len(texts) :]
    order = np.random.default_rng(0).permutation(len(users))
    exchanged = np.empty_like(by_user[0])
    exchanged[order] = by_user[0][np.roll(order, 1)]  # nobody keeps the own one
    popularity = np.log(shop.bought)
    return {
        **{name: clicks(pairs, popularity, *of) for name, *of in zip(texts, by_user, by_item, strict=True)},
        f"{next(iter(texts))}, of somebody else": clicks(pairs, popularity, exchanged, by_item[0]),
        "no user text": clicks(pairs, popularity, None, by_item[0]),
    }


def row(name: str, same: str, drawn: Sequence[Mapping[str, np.ndarray]]) -> str:
    """A line of the table: AUC, and what it is more than the first text's, for each way of drawing items."""
    cells = [name, same]
    for auc in drawn:
        first = auc[next(iter(auc))]
        cells.append(interval(auc[name][0], auc[name][1:], ""))
        cells.append("" if auc[name] is first else interval(auc[name][0] - first[0], auc[name][1:] - first[1:], "+"))
    return f"| {' | '.join(cells)} |"


def interval(value: float, resampled: np.ndarray, sign: str) -> str:
    """A number and its 95 % interval."""
    found = estimate(value, resampled)
    return f"{found.value:{sign}.4f} ({found.low:{sign}.4f} to {found.high:{sign}.4f})"


def named_file(given: str) -> tuple[str, Path]:
    """NAME=FILE."""
    name, _, path = given.partition("=")
    if not path:
        raise ArgumentTypeError(f"got {given!r}; expected NAME=FILE, such as strict=strict.jsonl")
    return name, Path(path)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", type=named_file, metavar="NAME=FILE", help="differences are to the first")
    parser.add_argument("--data", type=Path, required=True, help="folder of a dataset, such as beauty")
    parser.add_argument("--prefix", required=True, help="before u17 and i12 in the texts' ids, such as beauty-")
    parser.add_argument("--negatives", type=int, default=4, help="items not bought for each that was")
    parser.add_argument("--dimension", type=int, default=64, help="of the embeddings")
    parser.add_argument("--resamples", type=int, default=1000, help="of the users")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing of items and users")
    options = parser.parse_args()
    texts = {name: read_texts(path, options.prefix) for name, path in options.texts}
    shop = open_shop(options.data)
    later = [user for user, (bought, _) in shop.users.items() if bought]
    users = sorted(user for user in later if all(f"u{user}" in of for of in texts.values()))
    if len(users) < FOLDS:
        raise SystemExit(f"{len(users)} users are in all files and bought something later; expected some hundreds.")
    drawn = []
    for popular in (True, False):
        pairs = draw_pairs(shop, users, options.negatives, popular, options.seed)
        scores = predictions(shop, users, texts, pairs, options.dimension)
        drawn.append(aucs(pairs, scores, options.resamples, options.seed))
    first = next(iter(texts.values()))
    print(f"{len(users)} users, {int(pairs.clicked.sum())} items bought later, {options.negatives} others for each\n")
    print(
        "| user text | same as the first | AUC, others drawn by popularity | more | AUC, others drawn evenly | more |"
    )
    print("|---|---|---|---|---|---|")
    for name in drawn[0]:
        same = [texts[name][f"u{user}"] == first[f"u{user}"] for user in users] if name in texts else []
        print(row(name, f"{np.mean(same):.1%}" if same else "", drawn))


if __name__ == "__main__":
    main()
