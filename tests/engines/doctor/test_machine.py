"""What is known of a machine: processors, memory, control groups and GPUs."""

from pathlib import Path

import pytest

import specbeam.engines.doctor.examine as doctor_module
from specbeam.engines.doctor import trial
from specbeam.engines.doctor.examine import examine
from specbeam.engines.doctor.health import describe
from specbeam.engines.machine import gpus
from specbeam.engines.machine import processors as machine
from specbeam.engines.machine.cgroups import Allowance, allowance
from specbeam.engines.registry import chosen_threads

V1 = "4:memory:/a/b\n3:cpu,cpuacct:/a\n2:cpuset:/c\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, Allowance(1.5, None)),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, Allowance(2.0, None)),
        ("0::/gone\n", {"cpu.max": "50000 100000", "memory.max": "1000"}, Allowance(0.5, 1000)),
        ("0::/a\n", {"a/memory.max": "max", "memory.max": "4096"}, Allowance(None, 4096)),
        (V1, {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, Allowance(3.0, None)),
        (V1, {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, Allowance(None, None)),
        (V1, {"memory/a/memory.limit_in_bytes": "5000", "memory/a/b/memory.limit_in_bytes": "9223372036854771712"},
         Allowance(None, 5000)),
        ("0::/\n", {"cpu.max": "100000 0", "memory.max": "many"}, Allowance(None, None)),
        ("0::/\n", {"cpu.max": "", "memory.max": ""}, Allowance(None, None)),
        ("nonsense\n\n::", {}, Allowance(None, None)),
        (None, {"cpu.max": "100000 100000"}, Allowance(None, None)),
    ],
)  # fmt: skip
def test_control_groups(tmp_path: Path, own: str | None, files: dict[str, str], expected: Allowance) -> None:
    groups, proc = tmp_path / "groups", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    if own is not None:
        (proc / "self/cgroup").write_text(own)
    for name, content in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(content + "\n")
    assert allowance(proc, groups) == expected


def test_threads_are_no_more_than_the_control_group_lets_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_affine", lambda: 16)
    for quota, threads in ((None, 16), (64.0, 16), (2.0, 2), (1.5, 2), (0.1, 1)):
        monkeypatch.setattr(machine, "allowance", lambda quota=quota: Allowance(quota, 1 << 30))
        assert chosen_threads(None) == machine.found_processors().usable == threads
        assert chosen_threads(7) == 7  # as asked for
    assert machine.found_memory().limit == 1 << 30


def test_what_is_known_of_this_machine() -> None:
    found, memory = machine.found_processors(), machine.found_memory()
    assert 1 <= found.usable <= found.affine <= found.all
    assert found.name
    assert memory.total is not None
    assert memory.available is None or 0 < memory.available <= memory.total


def test_a_machine_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    found = machine.found_processors()
    assert found.instructions == ()
    assert found.name
    assert machine.found_memory().available is None


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> gpus.Gpus:
    """What is known where nvidia-smi is such a script."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return gpus.found_gpus()


def test_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = smi(tmp_path, monkeypatch, "echo 'H100, 81559, 81000, 570.1, 9.0'; echo 'A10, [N/A], [N/A], 570.1, [N/A]'")
    assert (found.driver, found.fault, found.visible) == ("570.1", None, "1")
    assert found.devices[0] == gpus.Gpu(name="H100", memory=81559 << 20, free=81000 << 20, compute_capability="9.0")
    assert found.devices[1] == gpus.Gpu(name="A10", memory=None, free=None, compute_capability=None)
    monkeypatch.setattr(doctor_module, "tried", lambda *_: trial.Answer((), "it does not"))
    text = describe(examine(None))
    assert "gpu        H100, 85.5 GB, 84.9 GB free, compute capability 9.0\n" in text
    assert "gpu        A10\n" in text
    assert "CUDA_VISIBLE_DEVICES=1" in text
    assert "cuda       driver 570.1" in text


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("exit 9", "it ended with status 9"),
        ("echo 'No devices were found'", "got 'No devices were found'; expected name, "),
        ("", "names no GPU"),
        ("printf '\\377\\n'", "got "),
        ("exec sleep 20", "gave no answer in 0.2 s: the driver hangs"),
    ],
)
def test_a_driver_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str) -> None:
    monkeypatch.setattr(gpus, "PATIENCE", 0.2 if "sleep" in script else 20)
    found = smi(tmp_path, monkeypatch, script)
    assert found.devices == ()
    assert said in str(found.fault)


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nvidia-smi is not here" in str(gpus.found_gpus().fault)
    (tmp_path / "nvidia-smi").write_text("not executable")
    assert gpus.found_gpus().fault is not None


def test_what_this_process_can_still_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowance", lambda: Allowance(None, None))
    available = machine.found_memory().available
    free = machine.free_memory()
    assert available is not None
    assert free is not None
    assert abs(free - available) < available / 2  # others use memory meanwhile
    monkeypatch.setattr(machine, "allowance", lambda: Allowance(None, 2))
    assert machine.free_memory() == 0  # a container's limit, which this process has reached
    monkeypatch.setattr(machine, "_lines", lambda name: [])
    monkeypatch.setattr(machine, "resident_memory", lambda: None)
    assert machine.free_memory() is None
