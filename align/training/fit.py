"""The training loop of `train` and `align`: the same weights, bit for bit, whether it was interrupted or not."""

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import msgspec
import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import TrainingArguments

from ...catalog.errors import OptionError, SpecBeamError
from ...export.quiet import quiet
from .budget import TrainingBudget, usable_precision
from .events import Events
from .loop import BAR, Batch, Loop, Loss, Pace, Progress, Validate, put_weights, trained_weights
from .order import EpochBatches, Samples
from .work import BEST, EVENTS, STATE, TRAINER, WorkFolder, load_json, load_like

__all__ = ["FitReport", "Samples", "TrainingBudget", "fit"]

LOGS = 200  # entries a run leaves in its events, about
BETA2 = 0.98  # the usual 0.999 remembers longer than runs of some hundred steps last


@dataclass(frozen=True)
class FitReport:
    """What came of a run."""

    steps: int
    seconds: float  # of all the run's parts, if it was interrupted
    first_loss: float
    last_loss: float  # mean of the last steps
    best: float | None  # of what was asked for; None where nothing was validated
    best_step: int  # the step of the weights that the model has now
    stopped_early: bool
    checks: tuple[dict[str, float], ...]  # the metrics of every look at the validation data, with their step


def fit(
    model: torch.nn.Module,
    samples: Samples,
    collate: Callable[[list[Any]], Batch],
    loss: Loss,
    budget: TrainingBudget,
    work: Path,
    *,
    validate: Validate | None = None,
    best: str = "validation_loss",
    larger_is_better: bool = False,
    resume: bool = True,
    progress: str | None = None,
    tensorboard: bool = True,
    fingerprint: str = "",
) -> FitReport:
    """Train the parameters of `model` that require a gradient; at the end it holds the best weights.

    `loss` gets the model and a collated batch on the model's device and returns the loss, or the loss and
    numbers to log; it may draw from torch's generators only. `validate` returns metrics, of which `best`
    decides which weights are kept and when to stop; without it the last weights are kept. `work` holds
    checkpoints and events (`work`/events); an interrupted run goes on from there when `fit` is called
    again with the same settings (unless `resume` is false), and the caller removes it afterwards.
    `fingerprint` says what else makes a run another run. `progress` names the bar (shown on a terminal).

    Raises `SpecBeamError` where the run is interrupted (a checkpoint is saved first), where the loss or the
    gradient is not finite, where a checkpoint cannot be written, and where `work` is another run's.
    """
    if not len(samples):
        raise OptionError("got no samples to train on; expected at least one.")
    arguments = _arguments(budget, len(samples), work)
    folder = WorkFolder(work)
    start = folder.claim(_settings(model, samples, budget, fingerprint), resume=resume)
    done, so_far = _so_far(start) if start is not None else (0, None)
    pace = Pace(
        checks=budget.check_steps(len(samples)), steps_an_epoch=budget.steps_an_epoch(len(samples)), best=best,
        larger_is_better=larger_is_better, patience=budget.patience,
    )  # fmt: skip
    batches = EpochBatches(samples, budget.batch, budget.seed)
    loader: DataLoader[Any] = DataLoader(samples, batch_sampler=batches, collate_fn=collate)
    events = Events(work / EVENTS if tensorboard else None, after=done)
    bar: tqdm[Any] = tqdm(
        initial=done, total=arguments.max_steps, desc=progress, disable=None if progress else True, bar_format=BAR
    )
    with quiet(), own_randomness(budget.seed), bar:
        loop = Loop(model, arguments, batches, loader, loss, validate, pace, folder, events, bar)
        if start is not None and so_far is not None:
            loop.progress = so_far
            loop.check(start)
        try:
            if done < arguments.max_steps and not loop.progress.stopped_early:
                _run(loop, start)
        finally:
            events.close()
            loop.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # of autocast
    return _finish(model, loop, folder, done)


def _so_far(checkpoint: Path) -> tuple[int, Progress]:
    """Steps that were made, and what they came to. Raises `SpecBeamError` where a checkpoint does not say."""
    try:
        steps = int(load_json(checkpoint, TRAINER)["global_step"])
        progress = msgspec.convert(load_json(checkpoint, STATE)["progress"], Progress)
        if checkpoint.name != f"checkpoint-{steps}" or progress.first_loss is None:
            raise ValueError(f"step {steps}, first loss {progress.first_loss}")
        return steps, progress
    except (KeyError, TypeError, ValueError, OverflowError, msgspec.ValidationError) as error:
        raise SpecBeamError(
            f"{checkpoint} does not say how far it came: {error!r}. Remove it and run the same command again."
        ) from None


def _run(loop: Loop, start: Path | None) -> None:
    """Train to the end. Raises `SpecBeamError` where the run is interrupted."""
    try:
        with _interruptible(loop):
            loop.train(resume_from_checkpoint=str(start) if start is not None else None)
    except KeyboardInterrupt:
        loop.interrupted = True
    finished = loop.state.global_step >= loop.args.max_steps or loop.progress.stopped_early
    if loop.interrupted and not finished:
        saved = loop.folder.last()
        where = f"The checkpoint {saved} is kept" if saved is not None else "There was no checkpoint yet"
        raise SpecBeamError(
            f"Training was interrupted after step {loop.state.global_step} of {loop.args.max_steps}. {where}: run the "
            "same command again to go on from there."
        )


@contextmanager
def _interruptible(loop: Loop) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the run after a checkpoint; a second one ends it at once."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        loop.interrupted = True
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(model: torch.nn.Module, loop: Loop, folder: WorkFolder, done: int) -> FitReport:
    """Put the best weights into the model and say what came of it."""
    last = folder.last()
    assert last is not None  # the last step is always saved
    put_weights(model, load_like(last, BEST, trained_weights(model)))
    model.eval()
    progress = loop.progress
    steps = max(loop.state.global_step, done)
    assert progress.first_loss is not None
    return FitReport(
        steps=steps,
        seconds=progress.seconds,
        first_loss=progress.first_loss,
        last_loss=progress.loss,
        best=progress.best,
        best_step=progress.best_step or steps,
        stopped_early=progress.stopped_early,
        checks=tuple(progress.checks),
    )


def _arguments(budget: TrainingBudget, samples: int, work: Path) -> TrainingArguments:
    """The budget in transformers' words. Whatever of its own it would print, watch or count is switched off."""
    steps, precision = budget.steps_for(samples), usable_precision(budget.precision)
    with quiet():
        arguments = TrainingArguments(
            output_dir=str(work), max_steps=steps, per_device_train_batch_size=budget.batch,
            gradient_accumulation_steps=budget.gradient_accumulation, learning_rate=budget.learning_rate,
            warmup_steps=round(steps * budget.warmup), weight_decay=budget.weight_decay, adam_beta2=BETA2,
            lr_scheduler_type="constant_with_warmup" if budget.schedule == "constant" else budget.schedule,
            max_grad_norm=budget.max_grad_norm, bf16=precision == "bf16", fp16=precision == "fp16",
            use_cpu=not torch.cuda.is_available(), seed=budget.seed,
            eval_strategy="no", save_strategy="no", logging_steps=max(1, steps // LOGS), logging_nan_inf_filter=False,
            report_to="none", disable_tqdm=True, remove_unused_columns=False, use_cache=True,
        )  # fmt: skip
        arguments._n_gpu = min(arguments.n_gpu, 1)  # else Trainer copies the model to all GPUs of the machine
    return arguments


def _settings(model: torch.nn.Module, samples: Samples, budget: TrainingBudget, fingerprint: str) -> dict[str, Any]:
    """What makes a run the same run."""
    shapes = [(name, list(weight.shape)) for name, weight in trained_weights(model).items()]
    return {
        **msgspec.to_builtins(budget),
        "model": blake2b(msgspec.json.encode(shapes), digest_size=8).hexdigest(),
        "samples": len(samples),
        "run": fingerprint,
    }


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Run with torch's generators at `seed`, then give back the caller's, Python's and NumPy's too."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
