"""transformers' `Trainer` with SpecBeam's pace: when to look, when to save, when to stop, and what a checkpoint is."""

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ...catalog.errors import SpecBeamError
from .events import Events
from .order import EpochBatches
from .work import (
    BEST,
    OPTIMIZER,
    RANDOM,
    STATE,
    TRAINER,
    WEIGHTS,
    Snapshot,
    WorkFolder,
    check_json,
    check_like,
    load_json,
    load_like,
    load_tensors,
    unfit,
)  # fmt: skip

SAVE_SECONDS = 120.0  # between checkpoints at most
RECENT = 20  # steps that the reported loss is the mean of
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam keeps of a parameter, beside its `step`
# What changes from step to step in state.json and trainer_state.json; all else follows from the run's settings.
CHANGING = frozenset(("lr", "last_epoch", "_step_count", "_last_lr", "scale", "_growth_tracker"))
COUNTED = frozenset(("epoch", "global_step", "num_train_epochs", "logging_steps", "eval_steps", "save_steps"))
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left, {postfix}"

Batch = dict[str, Any]
Loss = Callable[[torch.nn.Module, Batch], torch.Tensor | tuple[torch.Tensor, dict[str, float]]]
Validate = Callable[[torch.nn.Module], dict[str, float]]


class Progress(msgspec.Struct, kw_only=True):
    """What a run has come to; part of every checkpoint."""

    seconds: float = 0.0
    first_loss: float | None = None
    recent: list[float] = []  # losses of the last steps
    best: float | None = None
    best_step: int = 0
    worse: int = 0  # checks since the best
    stopped_early: bool = False
    checks: list[dict[str, float]] = []  # what every look at the validation data found

    @property
    def loss(self) -> float:
        """Mean of the last steps."""
        return sum(self.recent) / len(self.recent) if self.recent else float("nan")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """When to look, what is best and when to stop."""

    checks: frozenset[int]  # the steps after which to look and to save
    steps_an_epoch: int
    best: str
    larger_is_better: bool
    patience: int


class Loop(Trainer):
    """One training run. `interrupted` may be set at any time: the step is finished, a checkpoint saved, and it ends."""

    def __init__(
        self,
        model: torch.nn.Module,
        arguments: TrainingArguments,
        batches: EpochBatches,
        loader: DataLoader[Any],
        loss: Loss,
        validate: Validate | None,
        pace: Pace,
        folder: WorkFolder,
        events: Events,
        bar: "tqdm[Any]",
    ) -> None:
        self.progress = Progress()
        self.interrupted = False
        self._batches, self._loader, self._loss, self._validate = batches, loader, loss, validate
        self._pace, self.folder, self._events, self._bar = pace, folder, events, bar
        self._values: list[float] = []  # losses of the step's forward passes
        self._extras: dict[str, list[float]] = {}  # what losses said besides, since the last log
        self._began = self._saved = perf_counter()
        super().__init__(model=model, args=arguments, callbacks=[_Steps(self)])
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loader

    def floating_point_ops(self, inputs: Batch) -> int:
        return 0  # counting walks over all parameters in every step

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, *_: Any, **__: Any) -> torch.Tensor:
        """The loss, refused before it can spoil a weight if it is not finite."""
        with self.accelerator.autocast():
            result = self._loss(model, inputs)
        loss, extras = result if isinstance(result, tuple) else (result, {})
        value = float(loss.detach())
        if not isfinite(value):
            raise self._diverged(f"the loss is {value}", self.state.global_step + 1)
        self._values.append(value)
        for name, extra in extras.items():
            self._extras.setdefault(name, []).append(float(extra))
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> float:
        norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))  # type: ignore[no-untyped-call]
        if not isfinite(norm) and not self.args.fp16:  # in fp16 the gradient scaler looks for what fits
            what = f"the gradient's norm is {norm} at a loss of {self._values[-1]:.4g}"
            raise self._diverged(what, self.state.global_step + 1)
        return norm

    def _diverged(self, what: str, step: int) -> SpecBeamError:
        remedy = f"Lower the learning rate ({self.args.learning_rate:g})"
        if self.args.fp16:
            remedy += ", or train in bf16 or fp32 (--precision)"
        return SpecBeamError(
            f"Training diverged in step {step} of {self.state.max_steps}: {what}. The weights of that "
            f"step were not kept{self._kept()}. {remedy}, remove {self.folder.path} and start again."
        )

    def _kept(self) -> str:
        """Where the last good weights are."""
        last = self.folder.last()
        return "" if last is None else f"; the best before it are in {last / BEST}"

    def end_step(self, control: TrainerControl) -> None:
        """Take note of a finished step and decide what follows it."""
        step, now = self.state.global_step, perf_counter()
        loss = sum(self._values) / len(self._values)
        self._values.clear()
        progress = self.progress
        progress.first_loss = loss if progress.first_loss is None else progress.first_loss
        progress.recent = [*progress.recent[1 - RECENT :], loss]
        best = "" if progress.best is None else f", {self._pace.best.replace('_', ' ')} {progress.best:.4g}"
        self._bar.set_postfix_str(f"loss {progress.loss:.3f}{best}", refresh=False)
        self._bar.update(step - self._bar.n)
        check = step in self._pace.checks
        control.should_evaluate = check and self._validate is not None
        control.should_save = check or self.interrupted or now - self._saved > SAVE_SECONDS
        control.should_training_stop |= self.interrupted

    def begin_epoch(self) -> None:
        self._batches.begin(self.state.global_step // self._pace.steps_an_epoch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # and not the totals at the end
            extras = {name: sum(values) / len(values) for name, values in self._extras.items()}
            self._extras.clear()
            self._events.write({**logs, **extras}, self.state.global_step)
        self.control.should_log = False

    def _evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Look at the validation data: is this the best so far, and is it time to stop?"""
        assert self._validate is not None
        assert self.model is not None
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            metrics = self._validate(self.model)
        value, progress, step = metrics[self._pace.best], self.progress, self.state.global_step
        if not isfinite(value):
            raise self._diverged(f"the {self._pace.best.replace('_', ' ')} is {value}", step)
        sign = 1 if self._pace.larger_is_better else -1
        if progress.best is None or sign * value > sign * progress.best:
            progress.best, progress.best_step, progress.worse = value, step, 0
        else:
            progress.worse += 1
        progress.checks.append({"step": step, "loss": progress.loss, **metrics})
        if progress.worse >= self._pace.patience and step < self.state.max_steps:
            progress.stopped_early = self.control.should_training_stop = True
        self._events.write(metrics, step)
        self.control.should_evaluate = False
        return metrics

    def _save_checkpoint(self, *_: Any) -> None:
        now = perf_counter()
        self.progress.seconds += now - self._began
        self._began = self._saved = now
        step = self.state.global_step
        self.folder.save(step, self._snapshot(), is_best=self._validate is None or step == self.progress.best_step)

    def _snapshot(self) -> Snapshot:
        assert self.model is not None
        assert self.optimizer is not None
        weights = trained_weights(self.model)
        unfit = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
        if unfit:  # the step after would have noticed, but there may be none
            raise self._diverged(f"weights are not finite (first: {unfit[0]})", self.state.global_step)
        optimizer = self.optimizer.state_dict()
        tensors = {
            f"{number}.{name}": value for number, values in optimizer["state"].items() for name, value in values.items()
        }
        state = {"progress": msgspec.to_builtins(self.progress), **self._rates()}
        return Snapshot(weights, tensors, _generators(), state, vars(self.state))

    def check(self, checkpoint: Path) -> None:
        """Raise `SpecBeamError` unless `Trainer` can go on from the file of a checkpoint that it reads itself."""
        usual = {"max_steps": self.args.max_steps, "train_batch_size": self.args.train_batch_size}
        own = {**vars(self.state), **usual, "epoch": 0.0, "total_flos": 0.0}
        check_json(checkpoint / TRAINER, "numbers", load_json(checkpoint, TRAINER), own, COUNTED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.model is not None
        checkpoint, own = Path(resume_from_checkpoint), trained_weights(self.model)
        put_weights(self.model, load_like(checkpoint, WEIGHTS, own))
        if self.progress.best is not None:
            load_like(checkpoint, BEST, own)  # now, not when all is done

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = load_json(Path(checkpoint), STATE)
        for part, own in self._rates().items():
            check_json(Path(checkpoint) / STATE, part, state.get(part), own, CHANGING)
        moments = self._moments(Path(checkpoint))
        self.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
        self.lr_scheduler.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _rates(self) -> dict[str, Any]:
        """What the optimizer, its schedule and the gradients' scaler hold besides tensors, as JSON."""
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        scaler = self.accelerator.scaler
        return {
            "groups": self.optimizer.state_dict()["param_groups"],
            "schedule": self.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def _moments(self, checkpoint: Path) -> dict[int, dict[str, torch.Tensor]]:
        """The optimizer's state, by a parameter's number; none of one that never had a gradient."""
        assert self.optimizer is not None
        loaded = load_tensors(checkpoint, OPTIMIZER)
        numbers = {key.partition(".")[0] for key in loaded}
        own: dict[int, dict[str, torch.Tensor]] = {
            number: {"step": torch.zeros(()), **dict.fromkeys(MOMENTS, weight.detach())}
            for number, weight in enumerate(w for group in self.optimizer.param_groups for w in group["params"])
            if str(number) in numbers
        }
        named = {f"{number}.{name}": value for number, values in own.items() for name, value in values.items()}
        check_like(checkpoint / OPTIMIZER, loaded, named)
        return {number: {name: loaded[f"{number}.{name}"] for name in values} for number, values in own.items()}

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Loaded with the optimizer."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        generators = load_like(Path(checkpoint), RANDOM, _generators())
        try:
            torch.set_rng_state(generators["cpu"])
            if "cuda" in generators:
                torch.cuda.set_rng_state(generators["cuda"])
        except RuntimeError as error:
            raise unfit(Path(checkpoint) / RANDOM, f"is no generator's state: {error}") from None


def _generators() -> dict[str, torch.Tensor]:
    """The states of torch's own generators."""
    states = {"cpu": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


class _Steps(TrainerCallback):
    """Tells the loop of beginnings and ends."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._loop.begin_epoch()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._loop.end_step(control)


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that training changes, by name; tied ones once."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def put_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Write what `trained_weights` gave back into the model."""
    with torch.no_grad():
        for name, weight in trained_weights(model).items():
            weight.copy_(weights[name])
