"""AtSpeed's comparison again: drafts taught by every objective, measured at every K against one target.

All start from the same draft (plain next-token training) and have as many steps of the same size at the same
learning rate, from the same places of the training histories; "none" is that draft itself, "target" the target
as its own draft, which no alignment can better. Everything lies in one work folder: the target's trees
(teacher/), drafts/ and results/. What is there is not made again, and processes may share the folder: each
takes the runs that no other has begun. Three steps:

    python -m benchmarks.alignment.objectives --data beauty --work DIR   as often side by side as there are processors
    ... --speed    WS@K of the first seed's drafts, on a quiet machine
    ... --report   the tables, and a picture
"""

import fcntl
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.alignment.report import draw, tables
from benchmarks.alignment.results import (
    MODES,
    NONE,
    ORDER,
    UNTAUGHT,
    Measured,
    Report,
    Result,
    Setup,
    claim,
    result_file,
    run_name,
    write,
)
from benchmarks.shared import shared_data
from specbeam.align.align import PLACES_SEED, TEACHER, AlignOptions, align
from specbeam.align.objectives import find_objective
from specbeam.align.teaching.lessons import Places
from specbeam.align.teaching.searcher import Searcher
from specbeam.align.teaching.store import fill, open_store
from specbeam.align.training.samples import Format, PromptOptions
from specbeam.align.training.sources import Pretrained
from specbeam.align.training.train import split
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.engines.torch import TorchEngine
from specbeam.evaluate.data import HeldOut
from specbeam.evaluate.figures import Outcome, at_k
from specbeam.evaluate.settings import PLAIN, TOP_K, Settings
from specbeam.export.checkpoint import Checkpoint
from specbeam.runtime import DraftShape, Recommender, Verification
from specbeam.runtime.answers import answered
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning

BATCH = 32  # users a call, where drafts are measured
CHECKS = 10  # looks at the validation users; as many without a better one end no run early


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock that processes share; gives whether it is held, which is false only where not waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@dataclass(frozen=True, eq=False)
class Lab:
    """One target in memory, and the users that drafts are measured on."""

    setup: Setup
    dataset: Dataset
    folder: Path  # the target's
    form: Format
    target: TorchEngine
    users: HeldOut
    plain: dict[int, Outcome] = field(default_factory=dict)  # by K: what no draft may change

    @classmethod
    def open(cls, setup: Setup, data: Path, pair: Path) -> "Lab":
        dataset, checkpoint = Dataset.open(data), Checkpoint.open(pair / "target")
        form = Format.compile(checkpoint.tokenizer, dataset.catalog, PromptOptions())
        settings = Settings(users=setup.users)
        users = HeldOut.of(dataset, settings, checkpoint.directory, dataset.catalog, form.identifiers.trie.length)
        target = engine_of(checkpoint, dataset, form)
        return cls(setup, dataset, checkpoint.directory, form, target, users)

    def recommender(self, draft: TorchEngine | None, verification: Verification, *, reuse: bool = True) -> Recommender:
        """Straight from the checkpoints, nothing exported."""
        form, planning = self.form, FixedPlanning(None if draft is None else DraftShape())
        prompts = PromptEncoder(form.spec, form.identifiers.tokens, form.longest)
        loaded = Loaded(self.dataset.catalog, form.identifiers.trie, prompts, self.target, draft)
        return Recommender(loaded, planning=planning, verification=verification, batching=BATCH, reuse=reuse)

    def outcome(self, recommender: Recommender, k: int) -> Outcome:
        """The lists of all users."""
        fresh = recommender.variant(recommender.planning, BATCH)  # with counters of its own
        requests = [fresh.encode(example.history, user=example.user) for example in self.users.examples]
        return Outcome.of(answered(fresh.run(requests, k)), fresh.stats)

    def measured(self, draft: Path, name: str) -> tuple[Measured, ...]:
        """A draft at every K, in every mode."""
        engine = engine_of(Checkpoint.open(draft), self.dataset, self.form)
        relaxed = Verification("relaxed", temperature=1.0)
        recommenders = {
            "strict": self.recommender(engine, Verification()),
            "all-or-nothing": self.recommender(engine, Verification(), reuse=False),
            "relaxed": self.recommender(engine, relaxed),
        }
        found = []
        for k in tqdm(self.setup.top_k, desc=f"{name}, measuring", disable=None):
            if k not in self.plain:
                self.plain[k] = self.outcome(self.recommender(None, Verification()), k)
            outcomes = {mode: self.outcome(recommenders[mode], k) for mode in MODES}
            calls = {mode: tuple(outcome.counts[:, 0].tolist()) for mode, outcome in outcomes.items()}
            lists = blake2b(repr(outcomes["strict"].ranked).encode(), digest_size=8).hexdigest()
            figures = at_k(
                {**outcomes, PLAIN: self.plain[k]}, self.users.truth, k, plain=PLAIN, seed=0,
                strict={"strict", "all-or-nothing"},
            )  # fmt: skip
            found.append(Measured({mode: figures[mode] for mode in MODES}, calls, lists))
        return tuple(found)


def engine_of(checkpoint: Checkpoint, dataset: Dataset, form: Format) -> TorchEngine:
    """A checkpoint in fp32, on the GPU where there is one."""
    model = checkpoint.load("fp32", dataset.catalog.tokens)
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu")
    return TorchEngine(model, form.identifiers.trie.vocabulary, precision="fp32", threads=0)


def make_teacher(lab: Lab, work: Path) -> None:
    """Make the trees that all runs learn from, as `align` would: one process does, the others wait for it."""
    setup, width = lab.setup, AlignOptions().top_k
    histories, _, _ = split(lab.dataset, PLACES_SEED)
    places = Places.choose(histories, setup.windows, setup.places, seed=PLACES_SEED)
    with held(work / "locks" / TEACHER, wait=True):
        store = open_store(work / TEACHER, [lab.folder], lab.form, places, width)
        searcher = Searcher(lab.target, lab.form.identifiers.trie, lab.form.spec.prefix_ids, width)
        with tqdm(total=len(places), desc="teacher trees", disable=None) as bar:
            fill(store, searcher, places, lab.form, lambda stage, done, total: bar.update(done - bar.n))


def aligned(lab: Lab, pair: Path, work: Path, objective: str, seed: int) -> Path:
    """The draft of one run, taught now if it is not there yet."""
    if objective in UNTAUGHT:
        return pair / ("draft" if objective == NONE else "target")
    setup, output = lab.setup, work / "drafts" / run_name(objective, seed)
    if not output.is_dir():
        budget = {"steps": setup.steps, "batch": setup.batch, "learning_rate": setup.learning_rate, "seed": seed}
        report = align(
            lab.dataset, lab.folder, Pretrained(pair / "draft"), find_objective(objective), output,
            options=AlignOptions(windows=setup.windows, places=setup.places), teacher=work / TEACHER,
            budget={**budget, "checks": CHECKS, "patience": CHECKS}, bar=output.name,
        )  # fmt: skip
        tqdm.write(f"{output.name}: {report.summary()}", file=sys.stderr)
    return output


def run(lab: Lab, options: Namespace) -> None:
    """Every run that has no result and that no other process has begun."""
    for objective, seed in runs_of(options.objectives, options.seeds):
        name = run_name(objective, seed)
        path = result_file(options.work, name)
        with held(options.work / "locks" / name, wait=False) as mine:
            if mine and not path.is_file():
                draft = aligned(lab, options.pair, options.work, objective, seed)
                length, users = lab.users.truth.length, lab.users.truth.users
                write(path, Result(objective, seed, length, users, lab.measured(draft, name)))


def runs_of(objectives: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Seed by seed; untaught drafts have the first alone."""
    return [(name, seed) for seed in seeds for name in objectives if name not in UNTAUGHT or seed == seeds[0]]


def parsed() -> Namespace:
    """The options; exits with the reason where data or models are absent."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default="beauty", choices=["beauty", "games"])
    add(
        "--pair",
        type=Path,
        help="folder with target/ and draft/ (default: beauty's; see alignment.train_pair)",
    )
    add("--work", type=Path, required=True, help="folder for trees, drafts and results of one dataset")
    add("--objectives", nargs="+", default=list(ORDER), choices=ORDER, metavar="NAME", help="default: all")
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add("--steps", type=int, default=600)
    add("--batch", type=int, default=32, help="places a step")
    add("--learning-rate", type=float, default=2e-3, help="of all objectives")
    add("--windows", type=int, default=1, help="places of a history that are learned from")
    add("--places", type=int, help="at most so many places in all (default: no limit)")
    add("--users", type=int, default=500, help="test users, drawn at random")
    add("--top-k", type=int, nargs="+", default=list(TOP_K))
    add("--threads", type=int, help="of this process (default: all processors)")
    add("--rounds", type=int, default=32, help="of --speed")
    add("--picture", type=Path, help="of --report: .html, .svg or .png (default: alignment.svg in the work folder)")
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--teacher-only", action="store_true", help="make the target's trees and nothing else")
    step.add_argument("--speed", action="store_true", help="export the first seed's drafts and measure their speed")
    step.add_argument("--report", action="store_true", help="print the tables and draw the picture")
    options = parser.parse_args()
    shared = shared_data()
    if shared is None and not options.report:
        parser.exit(2, "The data/ and models/ folders are absent: name the folder that holds them in SPECBEAM_DATA.\n")
    if shared is not None:
        options.pair = options.pair or shared / "models" / options.data
        options.data = shared / "data" / options.data
    if not options.report and not (options.pair / "target").is_dir():
        parser.exit(
            2,
            f"{options.pair} has no target/. Train one (alignment.train_pair), give its folder as --pair.\n",
        )
    return options


def main() -> None:
    options = parsed()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        if options.report:
            report = Report(options.work)
            tables(report)
            draw(report, options.picture or options.work / "alignment.svg")
            return
        setup = Setup(
            data=options.data.name, pair=str(options.pair.resolve()), steps=options.steps, batch=options.batch,
            learning_rate=options.learning_rate, windows=options.windows, places=options.places, users=options.users,
            top_k=tuple(options.top_k),
        )  # fmt: skip
        claim(options.work, setup)
        if options.speed:
            from benchmarks.alignment.speed import measure_speed

            seed, drafts = options.seeds[0], options.work / "drafts"
            taught = (name for name in ORDER if name not in UNTAUGHT)
            paths = {NONE: options.pair / "draft", **{name: drafts / run_name(name, seed) for name in taught}}
            chosen = {name: path for name, path in paths.items() if name in options.objectives and path.is_dir()}
            measure_speed(options, setup, chosen)
            return
        lab = Lab.open(setup, options.data, options.pair)
        make_teacher(lab, options.work)
        if not options.teacher_only:
            run(lab, options)
    except SpecBeamError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
