"""The training loop: interrupted or not it ends with the same weights, and it never keeps bad ones."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from places import SUPPORT
from points import STEPS, At, Points, budget, error, interrupt, model, run, same, validate
from specbeam.align.training import loop
from specbeam.align.training.fit import FitReport
from specbeam.align.training.order import EpochBatches
from specbeam.catalog.errors import OptionError, SpecBeamError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, FitReport]:
    """The weights and the report of a run that nothing interrupts."""
    return run(tmp_path_factory.mktemp("whole") / "w")


def test_training_learns_and_reports(tmp_path: Path) -> None:
    weights, report = run(tmp_path / "w", budget={"steps": 60})
    assert report.steps == 60
    assert report.last_loss < report.first_loss / 2
    assert [check["step"] for check in report.checks] == [15, 30, 45, 60]
    assert report.best == min(check["validation_loss"] for check in report.checks)
    net = model()
    net.load_state_dict(weights)
    assert validate(net.eval())["validation_loss"] == pytest.approx(report.best)


@pytest.mark.parametrize("call", [1, 5, 6, 7, 15, 22])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tmp_path: Path, whole: Any, call: int) -> None:
    """An epoch is three steps with two, two and one forward passes; the first check is after the third step."""
    weights, expected = whole
    with pytest.raises(SpecBeamError, match="run the same command again"):
        run(tmp_path / "w", At(call, interrupt))
    resumed, report = run(tmp_path / "w")
    assert same(resumed, weights)
    assert (report.checks, report.best, report.last_loss) == (expected.checks, expected.best, expected.last_loss)
    assert report.first_loss == expected.first_loss


@pytest.mark.parametrize("name", ["state.json", "trainer_state.json", "weights.safetensors", "../settings.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecBeamError, match="run the same command again"):
        run(tmp_path / "w", At(6, interrupt))
    (checkpoint,) = (tmp_path / "w").glob("checkpoint-*")
    (checkpoint / name).write_text("[")
    with pytest.raises(SpecBeamError, match=rf"{Path(name).name}.*emove {tmp_path / 'w'} to start the run anew"):
        run(tmp_path / "w")


def lost(key: str) -> Callable[[Any], Any]:
    return lambda content: {name: value for name, value in content.items() if name != key}


OTHERS: list[tuple[str, Callable[[Any], Any]]] = [
    ("state.json", lost("schedule")),
    ("state.json", lambda c: {**c, "groups": [{**group, "lr": "x"} for group in c["groups"]]}),
    ("state.json", lambda c: {**c, "groups": [{**group, "differentiable": True} for group in c["groups"]]}),
    ("trainer_state.json", lambda c: {**c, "train_batch_size": {}}),
    ("trainer_state.json", lambda c: {**c, "log_history": 0.5}),
    ("trainer_state.json", lambda c: {**c, "unknown": 1}),
    ("weights.safetensors", lost("0.weight")),
    ("weights.safetensors", lambda c: {**c, "0.weight": torch.zeros(1, 4)}),  # which could be stretched
    ("best.safetensors", lambda c: {**c, "0.bias": torch.full((8,), torch.nan)}),
    ("optimizer.safetensors", lost("1.exp_avg")),
    ("optimizer.safetensors", lambda c: {**c, "x.step": torch.zeros(())}),
    ("optimizer.safetensors", lambda c: {**c, "0.exp_avg": torch.zeros(3)}),
    ("random.safetensors", lambda c: {"cpu": torch.zeros_like(c["cpu"])}),
    ("random.safetensors", lost("cpu")),
]


@pytest.mark.parametrize(("name", "change"), OTHERS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(OTHERS)])
def test_a_checkpoint_that_is_not_this_runs_is_refused(tmp_path: Path, name: str, change: Callable[[Any], Any]) -> None:
    """It can be read, but it would end training with a library's error, or go on from other numbers."""
    with pytest.raises(SpecBeamError, match="run the same command again"):
        run(tmp_path / "w", At(6, interrupt))
    (checkpoint,) = (tmp_path / "w").glob("checkpoint-*")
    file = checkpoint / name
    if name.endswith(".json"):
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
    else:
        changed = change(load_file(file))
        file.unlink()  # a link: the weights are the best ones
        save_file(changed, file)
    with pytest.raises(SpecBeamError, match=rf"{name} .*emove {tmp_path / 'w'} to start the run anew"):
        run(tmp_path / "w")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(tmp_path: Path, whole: Any, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SpecBeamError, match=r"interrupted after step 2 of 13. The checkpoint .*checkpoint-2 is kept"):
        run(tmp_path / "w", At(3, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) is before
    resumed, _ = run(tmp_path / "w")
    assert same(resumed, whole[0])


def test_a_killed_process_goes_on_from_its_last_checkpoint(tmp_path: Path, whole: Any) -> None:
    code = (
        f"import os, sys; sys.path.insert(0, {str(SUPPORT)!r}); from pathlib import Path\n"
        f"from points import At, run; run(Path({str(tmp_path / 'w')!r}), At(16, lambda: os.kill(os.getpid(), 9)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (tmp_path / "w" / ".checkpoint-7.abc.part").mkdir()  # as if it had been killed while it wrote
    assert [path.name for path in (tmp_path / "w").glob("checkpoint-*")] == ["checkpoint-6"]
    resumed, _ = run(tmp_path / "w")
    assert same(resumed, whole[0])
    assert not list((tmp_path / "w").glob(".checkpoint-*"))


def test_a_run_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    weights, expected = run(tmp_path / "w")
    again, report = run(tmp_path / "w", At(1, interrupt))
    assert same(again, weights)
    assert (report.steps, report.best) == (expected.steps, expected.best)


def test_checkpoints_are_also_saved_by_the_clock(tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    with pytest.raises(SpecBeamError, match="checkpoint-5 is kept"):
        run(tmp_path / "w", At(10, interrupt))
    assert same(run(tmp_path / "w")[0], whole[0])


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(tmp_path: Path) -> None:
    values = iter([3.0, 1.0, 2.0, 1.0, 0.5])
    seen: list[dict[str, torch.Tensor]] = []

    def look(net: torch.nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
        return {"validation_loss": next(values)}

    weights, report = run(tmp_path / "w", validate=look, budget={"checks": 6, "patience": 2})
    assert report.stopped_early
    assert len(report.checks) == 4
    assert (report.best, report.best_step) == (1.0, report.checks[1]["step"])
    assert same(weights, seen[1])
    assert not same(weights, seen[3])


def test_larger_may_be_better(tmp_path: Path) -> None:
    values = iter([0.1, 0.3, 0.2, 0.25])
    _, report = run(tmp_path / "w", validate=lambda _: {"hits": next(values)}, best="hits", larger_is_better=True)
    assert (report.best, report.best_step) == (0.3, report.checks[1]["step"])


def test_the_last_weights_are_kept_where_nothing_is_validated(tmp_path: Path) -> None:
    _, report = run(tmp_path / "w", validate=None)
    assert (report.best, report.best_step, report.checks) == (None, STEPS, ())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training_before_it_spoils_a_weight(
    tmp_path: Path, whole: Any, value: float
) -> None:
    net = model()
    with pytest.raises(SpecBeamError, match=r"diverged in step 9 of 13: the loss is .* Lower the learning rate"):
        run(tmp_path / "w", At(15, lambda: value), net)
    assert all(torch.isfinite(weight).all() for weight in net.parameters())
    assert same(run(tmp_path / "w")[0], whole[0])  # the checkpoint before it is good


def test_a_gradient_that_is_not_finite_ends_training(tmp_path: Path) -> None:
    def loss(net: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        return error(net, batch) + (net[0].bias.sum() * 0).sqrt()  # type: ignore[index]  # 0, of infinite slope

    with pytest.raises(SpecBeamError, match="the gradient's norm is nan"):
        run(tmp_path / "w", loss)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from specbeam.align.training import work

    saved: list[Path] = []

    def save(tensors: Any, path: Path) -> None:
        saved.append(path)
        if len(saved) > 3:  # the second checkpoint's
            raise OSError(28, "No space left on device")
        real(tensors, path)

    real = work.save_file
    monkeypatch.setattr(work, "save_file", save)
    with pytest.raises(
        SpecBeamError, match=r"step 6 could not be .*No space left.* The checkpoint of step 3 is intact"
    ):
        run(tmp_path / "w")
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["checkpoint-3", "settings.json"]
    assert same(run(tmp_path / "w")[0], whole[0])


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecBeamError):
        run(tmp_path / "w", At(15, interrupt))
    with pytest.raises(SpecBeamError, match=r"run of other settings \(seed 0, now 1\). Remove the folder"):
        run(tmp_path / "w", budget={"seed": 1})
    with pytest.raises(SpecBeamError, match=r"\(run , now other data\)"):
        run(tmp_path / "w", fingerprint="other data")
    run(tmp_path / "w", budget={"seed": 1}, resume=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(SpecBeamError, match="no training run's folder"):
        run(tmp_path / "mine")


def test_the_callers_generators_and_settings_are_left_alone(tmp_path: Path) -> None:
    state, numpy = torch.get_rng_state(), np.random.get_state()[1]
    run(tmp_path / "w")
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy == np.random.get_state()[1]).all()


def test_numbers_beside_the_loss_reach_the_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "w", lambda net, batch: (error(net, batch), {"agreement": 0.5}), tensorboard=True)
    events = EventAccumulator(str(tmp_path / "w" / "events")).Reload()
    assert {"loss", "learning_rate", "grad_norm", "agreement", "validation_loss"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("validation_loss")) == 4


def test_bf16_leaves_the_weights_in_fp32(tmp_path: Path) -> None:
    net = model()
    forward = net.forward
    weights, report = run(tmp_path / "w", net=net, budget={"precision": "bf16", "steps": 60})
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert report.last_loss < report.first_loss / 2
    assert net(torch.zeros(1, 4)).dtype == torch.float32
    assert net.forward.__func__ is forward.__func__  # type: ignore[attr-defined]  # nothing wraps it any longer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "got neither"),
        ({"epochs": 1.0}, "got both"),
        ({"learning_rate": float("nan")}, "got learning rate nan; expected more than 0"),
        ({"batch": 0}, "batch is 0, expected a whole number, at least 1"),
        ({"warmup": 1.0}, "warm-up of 1"),
        ({"precision": "int8"}, "precision is 'int8', expected one of auto, fp32"),
        ({"schedule": "wild"}, "schedule is 'wild', expected one of cosine"),
    ],
)
def test_bad_budgets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        budget(**changes)


def test_fp16_needs_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(OptionError, match="fp16 training needs a GPU"):
        run(tmp_path / "w", budget={"precision": "fp16"})


def test_every_epoch_holds_every_sample_once_in_an_order_of_its_own() -> None:
    samples = Points(37)
    orders = []
    for epoch in (0, 1, 0):
        batches = EpochBatches(samples, 4, seed=3)
        batches.begin(epoch)
        drawn = list(batches)
        assert len(drawn) == len(batches) == 10
        orders.append([index for batch in drawn for index in batch])
        assert sorted(orders[-1]) == list(range(37))
    assert orders[0] == orders[2] != orders[1]
