"""The whole way on generated data: train a pair, export, build, recommend, and check against plain beam search."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np

from ..align.align import AlignOptions, align
from ..align.objectives import PathKd
from ..align.synthetic import ShopSize, write_shop
from ..align.training.configs import ModelSize
from ..align.training.sources import FreshModel, Pretrained
from ..align.training.train import train
from ..catalog.errors import SpecBeamError
from ..catalog.files import whole_directory
from ..catalog.histories.dataset import Dataset
from ..catalog.histories.read import read_histories
from ..catalog.histories.requests import HistoryRequest
from ..catalog.items import Catalog
from ..engines.build import build_engine
from ..export import export_bundle
from ..runtime import Drafting, Recommendation, Recommender

TARGET = ModelSize(layers=4, hidden=128, heads=4, intermediate=352)
DRAFT = ModelSize(layers=1, hidden=64, heads=2, intermediate=176)
STEPS = (600, 700, 200)  # of target, draft and alignment: half a minute and twice a few seconds on two cores
TAUGHT = 3000  # places of histories that the target teaches the draft at
SCORE = 1e-3  # how far the scores of one item may lie apart
TIE = 1e-4  # items whose scores are this close may change places (docs/design.md, "Proof")
SHOWN_USERS, SHOWN_HISTORY, SHOWN_ITEMS = 3, 5, 5

Echo = Callable[[str], None]
Pair = tuple[ModelSize | str, ModelSize | str]  # as `FreshModel` takes them


@dataclass(frozen=True)
class Run:
    """What one recommender answered, and at what cost."""

    results: list[Recommendation]
    seconds: float
    rejections: int  # needed nodes that had not been drafted

    @property
    def calls(self) -> float:
        """Target calls a user."""
        return float(np.mean([result.stats.target_calls for result in self.results]))


def run_demo(
    directory: Path,
    *,
    pair: Pair = (TARGET, DRAFT),
    steps: tuple[int, int, int] = STEPS,
    users: int = 200,
    k: int = 10,
    shop: ShopSize | None = None,
    overwrite: bool = False,
    echo: Echo = print,
) -> None:
    """Write a shop, its checkpoints, a bundle and its engine to `directory`, and print what they can do.

    Target and draft, of the shapes `pair`, are trained, and the draft aligned, for `steps`. Raises `SpecBeamError`
    where `directory` exists and `overwrite` is false, and where drafting changed a list; then nothing is left
    behind.
    """
    with whole_directory(directory, kind="bundle", replace=overwrite) as part:
        index, items = part / "shop" / "index.json", part / "shop" / "items.json"
        echo("1. A shop, and users whose interests drift")
        write_shop(part / "shop", shop)
        catalog = Catalog.load(index, items)
        echo(f"   {len(catalog.item_ids)} items, such as {catalog.titles[0]!r}: {''.join(catalog.identifiers[0])}")
        echo("2. Training a target and a draft from scratch")
        train_pair(part, pair, steps[:2], echo)
        echo("3. Aligning the draft to the target's beam search")
        align_draft(part, steps[2], k, echo)
        echo("4. Exporting both to ONNX and building engines")
        bundle = part / "bundle"
        export_bundle(
            part / "target", part / "aligned", index, items, bundle, progress=lambda stage: echo(f"   {stage}")
        )
        build_engine(bundle)
        echo("5. Recommending to users the models have never seen")
        asked = read_requests(part / "shop" / "test.jsonl", users)
        answers = [request.labels[0] for request in asked]
        histories = [request.items for request in asked]
        speculative, plain = serve(bundle, histories, k, "model"), serve(bundle, histories, k, "none")
        check_same(speculative, plain)
        show_users(histories, speculative, answers, catalog, echo)
        popular = most_popular(part / "shop" / "train.jsonl", k)
        summarise(speculative, plain, answers, popular, k, echo)
    echo(f"\nAll of it is in {directory}. Look inside: specbeam inspect {directory / 'bundle'}")
    echo(f"Serve a file: specbeam infer {directory / 'bundle'} {directory / 'shop' / 'test.jsonl'} --output recs.jsonl")
    echo(f"See one search: specbeam explain {directory / 'bundle'} --history 3,17 --speculation fixed -o tree.html")


def train_pair(part: Path, pair: Pair, steps: tuple[int, int], echo: Echo) -> None:
    """Train `part`/target and `part`/draft on the shop's histories."""
    dataset = Dataset.open(part / "shop")
    for role, size, count in zip(("target", "draft"), pair, steps, strict=True):
        budget = {"steps": count, "checks": 5, "patience": 2}
        report = train(dataset, FreshModel(size), part / role, budget=budget, progress=f"   {role}")
        fit = report.fit
        echo(
            f"   {role}: {report.parameters:,} parameters, {fit.steps} steps in {fit.seconds:.0f} s, "
            f"loss a token {fit.first_loss:.2f} -> {fit.last_loss:.2f}, validation {fit.best:.2f}"
        )


def align_draft(part: Path, steps: int, k: int, echo: Echo) -> None:
    """Align `part`/draft to `part`/target, as `part`/aligned."""
    report = align(
        Dataset.open(part / "shop"), part / "target", Pretrained(part / "draft"), PathKd(top_k=k), part / "aligned",
        options=AlignOptions(top_k=k, places=TAUGHT), bar="   aligned",
        budget={"steps": steps, "learning_rate": 5e-3, "checks": 4},
    )  # fmt: skip
    for line in report.summary().splitlines():
        echo(f"   {line}")


def serve(bundle: Path, histories: Sequence[Sequence[str]], k: int, drafter: Literal["model", "none"]) -> Run:
    """Recommend k items for every history, after a few untimed ones (the first calls allocate)."""
    # As much is drafted as ever is, whatever would pay here: what is to be shown is that the lists stay the same.
    drafting = Drafting(drafter, speculation="fixed" if drafter == "model" else None)
    recommender = Recommender.open(bundle, drafting=drafting)
    recommender.recommend(histories[: 2 * recommender.batch_size], k)
    before, start = recommender.stats.rejections, perf_counter()
    results = recommender.recommend(histories, k)
    return Run(results, perf_counter() - start, recommender.stats.rejections - before)


def check_same(speculative: Run, plain: Run) -> None:
    """Raises `SpecBeamError` where drafting changed a list."""
    pairs = zip(speculative.results, plain.results, strict=True)
    differing = [user for user, (ours, theirs) in enumerate(pairs) if not same_list(ours, theirs)]
    if differing:
        raise SpecBeamError(
            f"{len(differing)} of {len(plain.results)} lists differ from those of plain beam search (the first: test "
            f"user {differing[0]}); expected none. This is a fault of SpecBeam: please report it with your versions."
        )


def same_list(ours: Recommendation, theirs: Recommendation) -> bool:
    """Equal items in equal order with equal scores, up to rounding; items that tie may change places."""
    if len(ours.items) != len(theirs.items):
        return False
    return all(
        abs(a.score - b.score) <= (SCORE if a.item == b.item else TIE)
        for a, b in zip(ours.items, theirs.items, strict=True)
    )


def show_users(
    histories: Sequence[Sequence[str]], run: Run, answers: Sequence[str], catalog: Catalog, echo: Echo
) -> None:
    """Print the last items of a few histories and what is recommended to their users."""
    for user, (history, result) in enumerate(islice(zip(histories, run.results, strict=True), SHOWN_USERS)):
        echo(f"\n   User {user + 1} took ({len(history)} items, the last ones)")
        for item in history[-SHOWN_HISTORY:]:
            echo(f"      {title(catalog, item)}")
        echo("   and is recommended")
        for rank, best in enumerate(result.items[:SHOWN_ITEMS], 1):
            mark = "  <- taken next" if best.item == answers[user] else ""
            echo(f"   {rank:>2}  {best.title or best.item:<44} {best.score:7.3f}{mark}")


def summarise(speculative: Run, plain: Run, answers: Sequence[str], popular: set[str], k: int, echo: Echo) -> None:
    """Print what the models are worth, and what drafting saved."""
    pairs = zip(answers, speculative.results, strict=True)
    recall = np.mean([answer in {best.item for best in result.items} for answer, result in pairs])
    by_popularity = np.mean([answer in popular for answer in answers])
    users, count = len(answers), speculative.rejections
    echo(f"\n   Recall@{k}: {recall:.1%} (the {k} most popular items: {by_popularity:.1%})")
    echo(f"   Lists equal to plain beam search: {users} of {users}, though {count} needed beams had not been drafted")
    echo(
        f"   Target calls a user: {plain.calls:.2f} without the draft, {speculative.calls:.2f} with it "
        f"({1 - speculative.calls / plain.calls:.0%} saved)"
    )
    echo(
        f"   Users a second: {users / plain.seconds:.0f} without the draft, {users / speculative.seconds:.0f} with it "
        f"(speed ratio {plain.seconds / speculative.seconds:.2f})"
    )
    echo("   (A call of a model this small costs its tokens, not its weights, so saved calls gain little on a CPU:")
    echo("   served with --speculation auto, the default, it would draft what pays, here little or nothing.)")


def read_requests(path: Path, limit: int | None = None) -> list[HistoryRequest]:
    """The requests of a file that has no bad line."""
    requests: Iterable[HistoryRequest] = (
        entry for entry in read_histories([path]) if isinstance(entry, HistoryRequest)
    )
    return list(islice(requests, limit))


def most_popular(path: Path, k: int) -> set[str]:
    """The k items that the histories of a file name most often."""
    items, counts = np.unique([item for request in read_requests(path) for item in request.items], return_counts=True)
    return set(items[np.argsort(-counts, kind="stable")[:k]].tolist())


def title(catalog: Catalog, item: str) -> str:
    """An item's title, or its id where it has none."""
    return catalog.titles[catalog.position[item]] or item
