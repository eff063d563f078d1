"""The hardware kit: parts that fail, hang or end their process; resuming; the report; a dry run on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

import kit_cases
from benchmarks.hardware.kit import child, command, engines, libraries, machine, report
from benchmarks.hardware.kit.parts import BACKENDS, PARTS, Job, Part, PassedOver
from benchmarks.hardware.kit.record import Record, read, write
from fake_cuda import FakeCuda
from kit_cases import made_setup
from quick_builds import few_timings
from specbeam.engines.machine.gpus import Gpu, Gpus
from tiny_bundle import Tiny

ROOT = Path(__file__).parents[2]
DRY = ("--device", "cpu", "--pair", "made")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(out: Path, *words: str, parts: Sequence[Part] = kit_cases.PARTS) -> int:
    return command.main(None, [str(out), *DRY, *words], parts)


def outcomes(out: Path, parts: Sequence[Part] = kit_cases.PARTS) -> dict[str, str]:
    records = [read(out, part.name) for part in parts]
    return {record.part: record.status for record in records if record is not None}


def kept(out: Path, part: str) -> Record:
    record = read(out, part)
    assert record is not None
    return record


def test_what_one_part_does_costs_no_other_anything_and_the_rest_is_done_when_resumed(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out, "--minutes", "0.07") == 1
    assert outcomes(out) == {
        "fine": "done", "raising": "failed", "absent": "passed over", "crashing": "failed", "slow": "unfinished",
        "apart": "done", "missing": "passed over",
    }  # fmt: skip
    assert kit_cases.done(out) == [
        "first", "second", "after", "before", "behind", "quick", "first", "second",
    ]  # fmt: skip
    raising = kept(out, "raising")
    assert [step.status for step in raising.steps] == ["failed", "passed over", "failed", "done"]
    assert raising.rows == [{"lists": 2}, {"step": "after", "ms": 1.5}]
    assert raising.reason == "wrong: two lists are not the same; broken: RuntimeError: a kernel failed"
    assert "a kernel failed" in (out / "logs" / "raising.log").read_text()
    crashed = kept(out, "crashing").step("crash")
    assert crashed is not None
    assert "SIGKILL" in str(crashed.reason)
    assert "the library says goodbye" in str(crashed.reason)
    slow = kept(out, "slow")
    assert "stopped after 0.07 minutes, its limit, at slow; 1 steps were not begun" in str(slow.reason)
    assert slow.planned == ("quick", "slow", "last")
    assert "'absent' is not done: this library is not installed" in str(kept(out, "missing").reason)
    told = capsys.readouterr().out
    assert "3/7 absent: passed over" in told
    page = (out / "report.md").read_text()
    assert "| [Part slow](#part-slow) | unfinished | 1 of 3 |" in page
    assert "- slow: unfinished: stopped after" in page
    assert "- last: not begun" in page
    assert "A dry run on a CPU: nothing here says anything about a GPU." in page

    (out / "work" / "quick").touch()
    before = (out / "fine.json").stat().st_mtime_ns
    assert run(out, "--resume") == 1
    assert (out / "fine.json").stat().st_mtime_ns == before
    assert kept(out, "slow").status == "done"
    assert kit_cases.done(out)[8:] == ["last", "slow"]  # what was stopped comes last; nothing is done twice
    assert "1/7 fine: done before, kept" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text())["lacking"] == []


# Who starts tests in the background may have their programs ignore SIGINT.
LOOP = "import signal, sys, kit_cases; signal.signal(signal.SIGINT, signal.default_int_handler); "
LOOP += "from benchmarks.hardware.kit.command import main; "
LOOP += "sys.exit(main(None, sys.argv[1:], [part for part in kit_cases.PARTS if part.name in ('fine', 'slow')]))"


def begun(out: Path, *words: str) -> tuple["subprocess.Popen[str]", int]:
    """The kit in a process, at the step that never ends; and the process of that."""
    paths = [os.environ.get("PYTHONPATH"), str(ROOT), str(ROOT / "tests" / "support")]
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(out), *DRY, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip
    waits, deadline = out / "work" / "waits", time.monotonic() + 60
    while not (waits.is_file() and waits.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, int(waits.read_text())


def is_running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_report_and_nothing_running(out: Path, how: signal.Signals) -> None:
    process, child = begun(out)
    process.send_signal(how)
    told, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert gone(child)
    assert "Go on with: --resume" in said
    assert "Traceback" not in said + told
    slow = kept(out, "slow")
    assert slow.status == "unfinished"
    assert "interrupted, at slow; 1 steps were not begun" in str(slow.reason)
    assert "interrupted" in (out / "report.md").read_text()
    assert not list(out.glob(".*"))


def test_a_kit_that_is_killed_takes_its_part_along_and_is_resumed(out: Path) -> None:
    process, child = begun(out)
    process.kill()
    process.communicate()
    assert gone(child)
    (out / "work" / "quick").touch()
    assert run(out, "--resume", "--parts", "fine,slow") == 0
    assert kit_cases.done(out) == ["first", "second", "quick", "slow", "last"]


def test_two_kits_in_one_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process, _ = begun(out)
    assert run(out, "--resume") == 2
    assert "being written by another run" in capsys.readouterr().err
    process.kill()
    process.communicate()


def test_results_of_another_machine_or_library_are_set_aside_and_so_is_what_cannot_be_read(out: Path) -> None:
    assert run(out, "--parts", "fine") == 0
    record = kept(out, "fine")
    write(out, Record(part="fine", setup=made_setup(gpu="another"), status="done", steps=record.steps))
    assert run(out, "--parts", "fine", "--resume") == 0
    assert json.loads((out / "earlier" / "fine-1.json").read_text())["setup"]["gpu"] == "another"
    (out / "fine.json").write_text('{"part": "fine"')
    assert run(out, "--parts", "fine", "--resume") == 0
    assert (out / "earlier" / "fine-2.json").read_text() == '{"part": "fine"'
    assert kept(out, "fine") == record or kept(out, "fine").status == "done"


@pytest.mark.parametrize("in_order", [False, True])
def test_a_step_that_was_stopped_keeps_its_place_where_others_build_on_it(out: Path, in_order: bool) -> None:
    job = command.checked(command.arguments(None, [str(out), *DRY]), kit_cases.PARTS)
    job.work.mkdir(parents=True)
    (job.work / "quick").touch()
    child.work(child.Told(job=job, part=kit_cases.part("slow", in_order=in_order), last=("quick",)))
    assert kit_cases.done(out) == (["quick", "slow", "last"] if in_order else ["slow", "last", "quick"])
    assert {part.name for part in PARTS if part.in_order} >= {"pair", "parity-torch"}


def test_a_report_needs_no_pictures(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.hardware.kit.pictures", ModuleType("pictures"))  # has no `draw`
    assert run(out, "--parts", "fine") == 0
    assert "Altair cannot be used here: ImportError" in (out / "report.md").read_text()


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(tmp_path / "file" / "out", "--parts", "fine") == 2
    assert "cannot be written to: Not a directory. Give another folder." in capsys.readouterr().err


def test_a_part_brings_those_whose_results_it_reads() -> None:
    found = [part.name for part in command.chosen("latency", PARTS)]
    assert found == ["pair", *(f"parity-{backend}" for backend in BACKENDS), "latency"]
    found = [part.name for part in command.chosen("latency,parity-torch", PARTS)]
    assert found == ["pair", "parity-torch", "latency"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0"], "--minutes: got 0; expected more than 0"),
        (["--minutes", "nan"], "--minutes: got nan"),
        (["--parts", "fine,nothing"], "there is no part nothing; expected of fine, raising"),
        (["--pair", "/nowhere"], "/nowhere"),
        (["--histories", "/nowhere"], "there is no file /nowhere"),
    ],
)
def test_what_cannot_be_asked_for(out: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(out, *words) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_results_are_not_replaced_and_other_folders_are_left_alone(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out, "--parts", "fine") == 0
    assert run(out, "--parts", "raising") == 2
    assert "holds results already (fine). Go on with them by --resume" in capsys.readouterr().err
    (out / "fine.json").unlink()
    assert run(out, "--resume") == 2
    assert "holds other files, and no results of this kit" in capsys.readouterr().err
    (out.parent / "file").touch()
    assert run(out.parent / "file") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_without_a_gpu_it_says_what_to_do(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none = Gpus(devices=(), driver=None, cuda=None, visible=None, fault="nvidia-smi is not here")
    monkeypatch.setattr(machine, "found_gpus", lambda: none)
    assert command.main(None, [str(out), "--pair", "made"]) == 2
    assert "No NVIDIA GPU is known here: nvidia-smi is not here" in capsys.readouterr().err
    assert not out.exists()


def gpus(visible: str | None) -> Gpus:
    devices = [Gpu(name=name, memory=1 << 34, free=1 << 33, compute_capability="8.9") for name in ("A", "B")]
    return Gpus(devices=tuple(devices), driver="580", cuda="13.0", visible=visible, fault=None)


def test_the_gpu_is_the_one_that_cuda_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for visible, name in ((None, "A"), ("1", "B"), ("1,0", "B"), ("GPU-5", "A")):
        assert machine.used(gpus(visible)).name == name
    with pytest.raises(Exception, match="hides every GPU"):
        machine.used(gpus(""))
    monkeypatch.setattr(machine, "found_gpus", lambda: gpus("1"))
    found = machine.found_setup("cuda", "made", "full")
    assert (found.gpu, found.driver, found.compute_capability) == ("B", "580", "8.9")
    assert "numpy" in found.versions


def gpu_job(out: Path, capability: str) -> Job:
    return Job(out=out, setup=made_setup(device="cuda", gpu="G", compute_capability=capability, size="full"))


def test_what_is_not_installed_is_passed_over_with_the_command_that_installs_it(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specbeam.engines.installed.PACKAGES", dict.fromkeys(PARTS_OF, ("no-such-package",)))
    for backend in PARTS_OF:
        with pytest.raises(PassedOver, match="is not installed"):
            engines.precisions(gpu_job(out, "8.9"), backend)
        with pytest.raises(PassedOver, match="is not installed"):
            libraries.steps(gpu_job(out, "8.9"))[backend]()


PARTS_OF = ("torch", "onnxruntime", "tensorrt", "tensorrt-rtx")


@pytest.fixture
def nvidia(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A machine with a GPU and both flavours of TensorRT, on the stand-in for them."""
    from specbeam.engines import registry

    version = registry.backend_version
    for module in (registry, libraries):
        monkeypatch.setattr(module, "backend_version", lambda name: "1" if "tensorrt" in name else version(name))
    gpu.reset(capability=(8, 6))
    return gpu


def attempted(job: Job, name: str) -> dict[str, str]:
    """A part's steps in this process, by their outcome."""
    (part,) = (part for part in PARTS if part.name == name)
    record = child.work(child.Told(job=job, part=part))
    while part.apart and record.status == "unfinished":
        record = child.work(child.Told(job=job, part=part))
    return {step.name: step.status if step.reason is None else str(step.reason) for step in record.steps}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.services)])
def test_both_flavours_of_tensorrt_go_all_the_way_on_a_stand_in_for_a_gpu(
    tiny: Tiny, out: Path, histories: Path, nvidia: FakeCuda, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    out.mkdir()
    wanted = ("fp32", "fp16", "int8") if every else ("fp16",)
    if not every:
        half = {(flavour, "cuda"): ("fp16",) for flavour in ("tensorrt", "tensorrt-rtx")}
        monkeypatch.setattr(engines, "PRECISIONS", half)
    setup = made_setup(device="cuda", gpu="G", compute_capability="8.6", pair=str(tiny.bundle))
    job = Job(out=out, setup=setup, histories=histories)
    assert set(attempted(job, "pair").values()) == {"done"}
    with few_timings():
        plain, rtx = attempted(job, "parity-tensorrt"), attempted(job, "parity-tensorrt-rtx")
    assert {plain[f"{precision}: {what}"] for precision in wanted for what in STEPS} == {"done"}
    assert {rtx[f"fp16: {what}"] for what in (*STEPS, "finish")} == {"done"}
    assert kept(out, "parity-tensorrt-rtx").rows[0]["for"] == "7.5 8.0 8.6 8.9 12.0 12.1"
    for flavour in ("tensorrt", "tensorrt-rtx"):
        assert set(attempted(job, f"lossless-{flavour}").values()) == {"done"}
    for row in kept(out, "lossless-tensorrt").rows:
        assert row["as without drafts"] == row["lists"] or row["engine"] != "tensorrt-cuda-fp32"
    for part in ("latency", "pools", "memory"):
        found = attempted(job, part)
        assert set(found.values()) == {"done"}
        assert any("tensorrt-rtx-cuda-fp16" in name for name in found)


STEPS = ("build", "layers", "numbers", "lists")


def test_gpus_that_tensorrt_for_rtx_does_not_list_are_passed_over(out: Path, nvidia: FakeCuda) -> None:
    with pytest.raises(PassedOver, match=r"does not list GPUs of compute capability 9\.0; it lists 7\.5, 8\.0"):
        engines.precisions(gpu_job(out, "9.0"), "tensorrt-rtx")
    assert engines.precisions(gpu_job(out, "7.5"), "tensorrt-rtx") == ("fp16", "bf16", "int8-weights")
    with pytest.raises(PassedOver, match=r"no bf16 kernels for GPUs of compute capability 7\.5"):
        engines.build(gpu_job(out, "7.5"), None, "tensorrt-rtx", "bf16")  # type: ignore[arg-type]


def test_tables_of_a_report() -> None:
    rows = [{"engine": "e", "new": new, "ms": float(new)} for new in (8, 1)]
    assert report.pivoted(rows) == [{"engine": "e", "1 new: ms": 1.0, "8 new: ms": 8.0}]
    assert report.tables([{"a": 1}, {"b": 2}, {"a": 3}]) == [[{"a": 1}, {"a": 3}], [{"b": 2}]]
    assert report.table([{"a": "x|y", "b": None}])[-1] == "| x\\|y |  |"
    lists = [
        {"engine": "e", "mode": "strict", "lists": 4, "as without drafts": 4, "overlap": overlap,
         "overlap with float32 on the CPU": 0.5, "rejected nodes": 2}
        for overlap in (1.0, 0.9)
    ]  # fmt: skip
    (row,) = report.least(lists)
    assert (row["lists"], row["least overlap"], row["rejected nodes"]) == (8, 0.9, 4)
    assert report.folded(["x"] * 50)[0] == "<details><summary>48 rows</summary>"


FEW = "libraries,parity-onnxruntime,parity-tensorrt,lossless-onnxruntime,latency"


def test_a_dry_run_of_some_parts_on_a_bundle_that_stays_as_it_is(
    tiny: Tiny, out: Path, histories: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.relative_to(tiny.bundle) for path in tiny.bundle.rglob("*"))
    words = ["--device", "cpu", "--pair", str(tiny.bundle), "--histories", str(histories), "--parts", FEW]
    status = command.main(None, [str(out), *words])
    assert status == 0, capsys.readouterr().out
    assert sorted(path.relative_to(tiny.bundle) for path in tiny.bundle.rglob("*")) == before
    found = outcomes(out, PARTS)
    assert found.pop("parity-tensorrt") == "passed over"
    assert set(found.values()) == {"done"}
    assert set(found) == {"libraries", "pair", "parity-onnxruntime", "lossless-onnxruntime", "latency"}
    parity = {row["engine"]: row for row in kept(out, "parity-onnxruntime").rows if "engine" in row}
    assert parity["onnxruntime-cpu-fp32"]["the same"] == parity["onnxruntime-cpu-fp32"]["lists"] == 6
    for row in kept(out, "lossless-onnxruntime").rows:
        if row["engine"] == "onnxruntime-cpu-fp32":
            assert row["as without drafts"] == row["lists"]
            assert row["overlap"] == row["overlap with float32 on the CPU"] == 1
    assert any(row["rejected nodes"] for row in kept(out, "lossless-onnxruntime").rows)
    page = (out / "report.md").read_text()
    assert "TensorRT runs on cuda; this is a dry run on the cpu" in page
    for name in ("latency", "lossless"):
        assert f"](pictures/{name}.svg)" in page
        assert (out / "pictures" / f"{name}.png").stat().st_size > 1000


@pytest.mark.services
def test_the_whole_kit_on_the_cpu(out: Path) -> None:
    """As a stranger runs it: by its path, from the repository's root."""
    done = subprocess.run(
        [sys.executable, "benchmarks/hardware/all.py", str(out), *DRY], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(out, PARTS)
    assert list(found) == [part.name for part in PARTS]
    assert {name for name, status in found.items() if status == "passed over"} <= {
        f"{part}-{backend}" for part in ("parity", "lossless") for backend in ("tensorrt", "tensorrt-rtx")
    }
    assert {path.name for path in (out / "pictures").iterdir()} == {
        f"{name}.{kind}" for name in ("latency", "calls", "lossless", "speculation") for kind in ("svg", "png")
    }
