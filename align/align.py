"""`specbeam align`: a draft learns what its target ranks highest."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from .. import __version__
from ..catalog import checks
from ..catalog.checks import Checked
from ..catalog.errors import HistoryError, OptionError, SpecBeamError
from ..catalog.files import check_replaceable
from ..catalog.histories.dataset import Dataset
from ..catalog.identifiers import Warn
from ..catalog.prompts.encoder import PromptEncoder
from ..catalog.prompts.options import PromptOptions
from ..export.local import Named, local
from ..export.trained import ALIGNMENT, Given, Trained, as_trained
from ..runtime.types import DraftShape, Int64
from .objectives import Objective
from .pair import Pair
from .policy import AcceptanceCheck, Policy
from .teaching.lessons import Lessons, Places, batch_of
from .teaching.searcher import BATCH, Searcher
from .teaching.store import Progress, fill, open_store
from .teaching.student import child_logprobs
from .teaching.trees import joined
from .training.budget import TrainingBudget
from .training.fit import FitReport, fit
from .training.samples import Format
from .training.sources import Source
from .training.train import checked, split
from .training.work import EVENTS

TEACHER, FIT = OWN = ("teacher", "fit")  # what a work folder holds
PLACES_SEED = 0  # the same places whatever a run's seed is, so that runs can share the teacher data
CHECKED = 256  # prompts that acceptance is validated on


class AlignOptions(Checked, frozen=True, kw_only=True):
    """What is taught, besides the objective."""

    top_k: int = 20  # K: the width of the target's beam search
    windows: int = 1  # places of a history that are learned from, the last one included
    places: int | None = None  # at most so many of them in all, drawn at random, the same for every seed
    on_policy: float = 0.0  # share of batches whose trees the draft draws itself

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.within(self, 1, **dict.fromkeys(("top_k", "windows", "places"), checks.LARGEST))
        if not 0 <= self.on_policy <= 1:
            raise OptionError(f"got an on-policy share of {self.on_policy:g}; expected 0 to 1.")


@dataclass(frozen=True)
class AlignReport:
    """What came of an alignment."""

    parameters: int
    objective: Objective
    options: AlignOptions
    prompt: PromptOptions
    budget: TrainingBudget
    before: dict[str, float]  # validation metrics of the draft as it came
    fit: FitReport
    samples: int
    teacher_bytes: int

    def summary(self) -> str:
        """What to tell of it, in a few lines."""
        fit = self.fit
        best = next((check for check in fit.checks if check["step"] == fit.best_step), self.before)
        worse = fit.best is not None and fit.best < self.before["agreement"]
        return "\n".join(
            [
                *["WARNING: it agrees less than it did. Lower the learning rate, or train longer."] * worse,
                f"{self.parameters:,} parameters; {fit.steps} steps in {fit.seconds:.0f} s"
                f"{' (stopped early)' if fit.stopped_early else ''} on {self.samples:,} places of histories "
                f"({self.teacher_bytes / 1e6:.0f} MB of teacher data), loss {fit.first_loss:.3f} -> "
                f"{fit.last_loss:.3f}",
                f"needed nodes that are drafted (top {self.options.top_k}, {DraftShape().width} a depth, validation): "
                f"{self.before['acceptance']:.1%} -> {best['acceptance']:.1%}; depths of which all are: "
                f"{self.before['accepted_levels']:.2f} -> {best['accepted_levels']:.2f}",
            ]
        )


def align(
    dataset: Dataset,
    target: Named,
    draft: Source,
    objective: Objective,
    output: Path,
    *,
    options: AlignOptions | None = None,
    budget: Mapping[str, Any] | None = None,
    prompt: Given = None,
    other_prompt: bool = False,
    teacher: Path | None = None,
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
    bar: str | None = None,
    warn: Warn = lambda text: None,
) -> AlignReport:
    """Align `draft` to the checkpoint `target` over the dataset's training histories, and write it to `output`.

    `target` is a folder, or org/name[@revision] of a hub. Its beam trees are made first, by the runtime that serves
    it, and kept in the folder `teacher` (default: the work folder `output`.work, which is removed at the end); what is
    there is used again. The
    weights that have the most accepted levels on validation users are kept. `budget` changes settings of
    `TrainingBudget` from what is usual for the draft; the prompt is as the target was trained, or as `prompt`
    says, which must not contradict that without `other_prompt` (`warn` is told of what is harmless). An
    interrupted alignment goes on when called again. `progress` is told of the teacher data, `bar` names the
    training's own. Raises `SpecBeamError`: where the tokens of draft and target differ, there is nothing to
    learn from, and as `train` does.
    """
    output = checked(dataset, draft, output, overwrite=overwrite)
    teacher = None if teacher is None else checks.path(teacher, "teacher")
    checks.instance(objective, "objective", Objective, "such as find_objective('path-kd')")
    options = AlignOptions() if options is None else options
    checks.instance(options, "options", AlignOptions, "such as AlignOptions(top_k=20)")
    check_replaceable(output, kind=ALIGNMENT, replace=overwrite)
    dataset.require_training()
    target = local(target, "target")
    known = Trained.of(target)
    asked = as_trained(known, prompt, other_prompt=other_prompt, warn=warn)
    check_on_policy(options, objective)
    work = claimed(output.with_name(f"{output.name}.work"))
    pair = Pair.open(dataset, target, draft, asked, None if other_prompt else known, budget, warn)
    model, form, seed = pair.draft, pair.form, pair.seed
    histories, held_out, _ = split(dataset, PLACES_SEED)
    places = Places.choose(histories, options.windows, options.places, seed=PLACES_SEED)
    check_enough(dataset, len(places), len(held_out))
    searcher = Searcher(pair.target, form.identifiers.trie, form.spec.prefix_ids, options.top_k)
    store = open_store(teacher or work / TEACHER, pair.folders, form, places, options.top_k)
    fill(store, searcher, places, form, progress)
    encoder = PromptEncoder(form.spec, form.identifiers.tokens, form.longest)
    torch.nn.Module.to(model, pair.target.device)
    policy = Policy(model, form)
    leaves = objective.reaches_leaves or objective.alpha < 1
    lessons = Lessons(places, form, encoder, store, leaves=leaves, start=policy.start)
    check = acceptance_check(policy, searcher, [encoder.encode(history).ids for history, _ in held_out], form, seed)
    before, loss = check(model), _loss(objective, options, policy, lessons, searcher)
    report = fit(
        model, lessons, lessons.collate, loss, pair.budget, work / FIT, validate=check, best="agreement",
        larger_is_better=True, progress=bar, fingerprint=f"{draft}, {objective}, {options}, {store.settings}",
    )  # fmt: skip
    parameters = sum(weight.numel() for weight in model.parameters())
    result = AlignReport(parameters, objective, options, asked, pair.budget, before, report, len(places), store.bytes())
    draft.write(
        model, pair.tokenizer, output, record=ALIGNMENT, content=record(result, dataset, target, draft, form),
        events=work / FIT / EVENTS, overwrite=overwrite,
    )  # fmt: skip
    for name in OWN:
        shutil.rmtree(work / name, ignore_errors=True)
    work.rmdir()
    return result


def _loss(
    objective: Objective, options: AlignOptions, policy: Policy, lessons: Lessons, searcher: Searcher
) -> Callable[[torch.nn.Module, dict[str, Any]], torch.Tensor]:
    """The loss of a batch, a share of them on the draft's own trees."""

    def loss(model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        if options.on_policy and float(torch.rand(())) < options.on_policy:
            inputs = policy.lesson(inputs, lessons, searcher, options.top_k)
        batch = batch_of(inputs)
        return objective(batch, child_logprobs(model, batch))

    return loss


def check_on_policy(options: AlignOptions, objective: Objective) -> None:
    """Raise `OptionError` for an objective that has nothing to learn from the draft's own trees."""
    if options.on_policy and not objective.judged:
        raise OptionError(
            f"{type(objective).__name__} learns from what a tree holds and not from what the target thinks of it: on "
            "its own trees the draft would learn itself. Leave the on-policy share out, or choose another objective."
        )


def check_enough(dataset: Dataset, places: int, held_out: int) -> None:
    """Raise `HistoryError` where there is nothing to learn from, or nobody to validate on."""
    if not places or not held_out:
        raise HistoryError(
            f"{dataset.folder} has {places} places in training histories where an item follows another (histories of "
            f"at least two items), and {held_out} users to validate on (a validation split, or two training histories "
            "of at least three items); expected at least one of each."
        )


def claimed(work: Path) -> Path:
    """The work folder. Raises `SpecBeamError` where it holds something that no alignment put there."""
    strange = sorted(path.name for path in work.iterdir() if path.name not in OWN) if work.is_dir() else []
    if strange:
        raise SpecBeamError(
            f"{work} holds {', '.join(strange[:3])}, which no alignment put there; expected {' and '.join(OWN)} of an "
            "interrupted one. Move it away, or choose another --output."
        )
    return work


def acceptance_check(
    policy: Policy, searcher: Searcher, prompts: list[Int64], form: Format, seed: int
) -> AcceptanceCheck:
    """Acceptance on up to `CHECKED` of the prompts, drawn by the seed."""
    rng = np.random.default_rng([seed, 3])
    drawn = [prompts[i] for i in rng.permutation(len(prompts))[:CHECKED]]
    drawn.sort(key=len)
    needed = joined([searcher.trees(drawn[at : at + BATCH]) for at in range(0, len(drawn), BATCH)])
    return AcceptanceCheck(policy, drawn, needed, form.identifiers.trie, DraftShape().width)


def record(report: AlignReport, dataset: Dataset, target: Path, draft: Source, form: Format) -> bytes:
    """The content of alignment.json."""
    content = {
        "specbeam_version": __version__,
        "data": str(dataset.folder),
        "target": str(target),
        "draft": str(draft),
        **form.recorded(report.prompt),
        "objective": {"name": type(report.objective).__name__, **vars(report.objective)},
        "options": report.options,
        "budget": report.budget,
        "parameters": report.parameters,
        "places": report.samples,
        "before": report.before,
        "fit": report.fit,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1)
