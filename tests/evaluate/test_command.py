"""The command on a tiny pair: what it measures, writes, draws and refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from commands import bad, good, lines, only, write
from loaded import HEAVY, loaded_by
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.extras import install
from specbeam.catalog.histories.dataset import Dataset
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.machine.processors import busy, processor
from specbeam.evaluate import Evaluation, Settings, evaluate
from specbeam.evaluate.data import HeldOut
from specbeam.evaluate.table import described
from specbeam.runtime import EngineChoice
from tiny_bundle import Tiny, edit_manifest


def test_importing_it_is_light() -> None:
    assert not loaded_by("import specbeam.evaluate, specbeam.evaluate.table") & HEAVY


@pytest.fixture
def shop(tiny: Tiny, tmp_path: Path) -> Path:
    """A dataset of the tiny catalog: 12 users, one of whom knows no item, one of whom has two requests."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "index.json").write_text(tiny.index.read_text())
    write(folder / "train.jsonl", *({"user": f"t{i}", "items": [str(i), str(i + 1)]} for i in range(20)))
    rows: list[Any] = [
        {"user": f"u{i % 10}", "items": [str(i), str(2 * i)], "labels": [str(3 * i), str(39 - i), "nowhere"]}
        for i in range(11)
    ]
    write(folder / "test.jsonl", *rows, {"user": "lost", "items": ["nowhere"], "labels": ["1"]})
    return folder


def test_the_command_measures_writes_and_draws(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    output, per_user, plot = (tmp_path / name for name in ("results.json", "users.jsonl", "plot.svg"))
    result = good(
        "evaluate", tiny.bundle, shop, "-k", 4, "-k", 2, "--verify", "strict", "--verify", "relaxed", "--rule", "both",
        "--timed-users", 2, "--batch-size", 2, "--threads", 1, "--draft-width", 12, "-o", output,
        "--per-user", per_user, "--plot", plot,
    )  # fmt: skip
    found = msgspec.json.decode(output.read_bytes(), type=Evaluation)
    assert described(found) in result.stdout
    assert max(map(len, result.stdout.split("\n\nNote")[0].splitlines()[5:])) <= 120
    assert (found.data.requests, found.data.users, found.data.left_out) == (11, 10, 1)
    assert (found.data.unknown_labels, found.data.items) == (11, 40)
    assert "1 requests are left out" in result.stdout
    names = ["strict", "strict, all-or-nothing", "relaxed", "relaxed, all-or-nothing", "plain"]
    assert [mode.search.name for mode in found.modes] == names
    by_name = {mode.search.name: mode.at for mode in found.modes}
    assert [at.k for at in by_name["strict"]] == [2, 4]
    assert [at.differing for name in names[:2] for at in by_name[name]] == [0] * 4
    assert "44 of 44 strict lists are those of plain beam search" in result.stdout
    assert all(at.target_calls.value == 3 for at in by_name["plain"])
    for at, plain in zip(by_name["strict"], by_name["plain"], strict=True):
        assert at.recall == plain.recall
        assert at.target_calls.value < 3
    assert {(pace.batch, pace.name) for pace in found.paces} == {
        *((batch, name) for batch in (1, 2) for name in names), (1, "generate"),
    }  # fmt: skip
    assert [pace.differing for pace in found.paces if pace.name == "generate"] == [0, 0]
    rows = lines(per_user)
    assert len(rows) == 11 * 5 * 2
    mine = [row for row in rows if row["mode"] == "strict" and row["k"] == 4]
    assert np.mean([row["recall"] for row in mine]) == pytest.approx(by_name["strict"][1].recall.value)
    assert all(len(set(row["items"])) == 4 for row in mine)
    assert "Speed-up WS@K over generate (batch 1)" in plot.read_text("utf-8")
    assert "Target calls a request" in plot.read_text("utf-8")
    where = f"{processor()}, processors: {found.setup.processors}, threads of an engine: 1, ONNX Runtime 1."
    for text in (result.stdout, plot.read_text("utf-8").replace("</text>", " ")):
        assert where in text
    assert "target calls at batch 2" in plot.read_text("utf-8")
    work = result.stdout.partition("Work, means of a request:")[2].partition("Differences to strict")[0]
    assert [row.split("|")[-2].strip() for row in work.splitlines() if row.startswith("| plain")] == ["-"]
    for heading in ("Recall@K", "R warm", "coverage", "target calls", "AS@K", "nodes", "acceptance by depth", "WS@K"):
        assert f"{heading}:" in result.stdout or f"{heading}, " in result.stdout, heading
    assert "target calls, difference" in result.stdout
    assert [at.acceptance for at in by_name["plain"]] == [(None, None)] * 2
    assert "strict: 12 nodes at each of 3 depths drafted (fixed)" in result.stdout


def test_without_walltime_the_picture_has_one_panel(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    good("evaluate", tiny.bundle, shop, "-k", 2, "--timed-users", 0, "--users", 5, "--plot", plot, "--threads", 1)
    assert "Target calls a request" in plot.read_text("utf-8")
    assert "WS@K" not in plot.read_text("utf-8")


def test_the_draw_of_users_is_seeded(tiny: Tiny, shop: Path) -> None:
    dataset, catalog = Dataset.open(shop), Bundle.open(tiny.bundle).catalog()

    def drawn(**settings: Any) -> tuple[str, ...]:
        return HeldOut.of(dataset, Settings(**settings), tiny.bundle, catalog, 3).truth.users

    assert len(drawn(users=5)) == 5
    assert drawn(users=5) == drawn(users=5)
    assert len({drawn(users=5, seed=seed) for seed in range(5)}) > 1
    assert len(drawn(users=100)) == 11


def test_without_training_histories_warm_is_not_known(tiny: Tiny, shop: Path) -> None:
    (shop / "train.jsonl").unlink()
    found = evaluate(
        tiny.bundle, Dataset.open(shop), Settings(top_k=(2,), timed_users=0, engine=EngineChoice(threads=1))
    )
    assert found.data.warm_labels is None
    assert found.modes[0].at[0].warm is None
    assert "warm)" not in described(found)


def test_generate_is_skipped_with_the_reason(bundle: Path, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Bundle.open(bundle).manifest.files
    edit_manifest(bundle, files={name: facts for name, facts in files.items() if "checkpoint" not in name})
    quick = ("--timed-users", 1, "--batch-size", 1, "--threads", 1, "--speculation", "fixed")
    arguments = ("evaluate", bundle, shop, "-k", 2, *quick)
    result = good(*arguments)
    assert "Note: generate was not timed:" in result.stdout
    assert "has no target/checkpoint" in result.stdout
    assert "WS@K, plain" in result.stdout
    assert "WS@K, generate" not in result.stdout
    monkeypatch.delitem(sys.modules, "specbeam.evaluate.generate", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert f"transformers is not installed; run: {install('export')}" in good(*arguments).stdout


def test_what_cannot_be_evaluated_is_refused(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    assert "no requests in its valid split" in bad("evaluate", tiny.bundle, shop, "--split", "valid")
    assert "at most 200 items" in bad("evaluate", tiny.bundle, shop, "-k", 201)
    assert "a slack is for tolerant" in bad("evaluate", tiny.bundle, shop, "--slack", 1)
    output = tmp_path / "results.json"
    assert "expected another name for every output" in bad(
        "evaluate", tiny.bundle, shop, "-o", output, "--per-user", output
    )
    assert "got the suffix '.gif'" in bad("evaluate", tiny.bundle, shop, "--plot", tmp_path / "plot.gif")
    only(output)
    output.write_text("mine")
    assert "exists already" in bad("evaluate", tiny.bundle, shop, "-o", output)
    assert output.read_text() == "mine"


def test_relaxed_needs_a_draft(bundle: Path, shop: Path) -> None:
    edit_manifest(bundle, draft=None)
    assert "relaxed verification needs a draft" in bad("evaluate", bundle, shop, "--verify", "relaxed")
    result = good("evaluate", bundle, shop, "-k", 2, "--timed-users", 0, "--threads", 1)
    assert "22 of" not in result.stdout
    assert "11 of 11 strict lists" in result.stdout


def test_who_does_the_same_is_not_compared(tiny: Tiny, shop: Path, tmp_path: Path) -> None:
    """Without a drafter strict search is plain beam search: no ratio is told, and times are told once."""
    output = tmp_path / "results.json"
    told = good(
        "evaluate", tiny.bundle, shop, "-k", 2, "--against", "plain", "--timed-users", 6, "--batch-size", 1,
        "--drafter", "none", "--threads", 1, "-o", output,
    ).stdout  # fmt: skip
    (strict, plain) = msgspec.json.decode(output.read_bytes(), type=Evaluation).paces
    assert (strict.same_as, strict.milliseconds, strict.speedup) == ("plain", plain.milliseconds, {})
    assert "| as plain" in told
    assert "nothing was drafted, so the work was plain's" in told
    assert "WS@K, plain" not in told


def test_a_busy_machine_is_told_of_everywhere(
    tiny: Tiny, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specbeam.evaluate.run.load", lambda: 500.0)
    output, plot = tmp_path / "results.json", tmp_path / "plot.svg"
    told = good(
        "evaluate", tiny.bundle, shop, "-k", 2, "--against", "plain", "--timed-users", 1, "--threads", 1, "-o", output,
        "--plot", plot,
    ).stdout  # fmt: skip
    found = msgspec.json.decode(output.read_bytes(), type=Evaluation)
    said = f"the machine was busy when timing began (load 500.0 on {found.setup.processors} processors)"
    for text in (told, plot.read_text("utf-8"), " ".join(found.notes)):
        assert said in text
    assert found.setup.load == 500
    assert "1 rounds of walltime are too few for 95 % intervals" in told
    assert "95 % intervals, of the speed-up all of 1 rounds" in plot.read_text("utf-8")


def test_a_machine_that_is_not_busy_is_not_spoken_of() -> None:
    assert busy(2.5, 2) is busy(None, 2) is None
    assert busy(2.6, 2) is not None
    assert processor()


def test_a_bundle_of_another_dataset_is_refused(tiny: Tiny, shop: Path) -> None:
    index = json.loads(tiny.index.read_text())
    (shop / "index.json").write_text(json.dumps({item: identifier[::-1] for item, identifier in index.items()}))
    message = bad("evaluate", tiny.bundle, shop)
    assert "do not belong together: of 40 items in both" in message
    (shop / "index.json").write_text(json.dumps({f"x{item}": identifier for item, identifier in index.items()}))
    write(shop / "test.jsonl", {"user": "u", "items": ["x1"], "labels": ["x2", "x3"]})
    assert "none of 2 items to be found in the test split is among the bundle's 40" in bad(
        "evaluate", tiny.bundle, shop
    )
    write(shop / "test.jsonl", {"user": "u", "items": ["x1"], "labels": ["2"]})
    with pytest.raises(SpecBeamError, match="none of 1 histories"):
        evaluate(tiny.bundle, Dataset.open(shop))


def test_an_engine_of_another_precision_may_differ_from_generate(bundle: Path, shop: Path) -> None:
    """`generate` runs the checkpoint: what a rounded engine ranks otherwise is no fault of the search."""
    good(
        "build-engine", bundle, "--precision", "int8", "--calibration", shop, "--method", "weight4", "--no-gate",
        "--threads", 1,
    )  # fmt: skip
    told = good(
        "evaluate", bundle, shop, "--engine", "onnxruntime-cpu-int8", "-k", 8, "--timed-users", 4, "--batch-size", 1,
        "--threads", 1,
    ).stdout  # fmt: skip
    assert "strict lists are not those of generate; it runs the checkpoint, not onnxruntime-cpu-int8" in told
    assert "expected none" not in told
