"""Parts of the hardware kit that do what they should not, and a machine that they run on."""

import os
import signal
import time
from pathlib import Path

from benchmarks.hardware.kit.parts import Job, Part, PassedOver, Steps, Wrong
from benchmarks.hardware.kit.record import VERSION, Row, Setup


def made_setup(**changes: object) -> Setup:
    """Of a dry run, or of a machine that is made up."""
    given: dict[str, object] = {
        "device": "cpu", "gpu": None, "compute_capability": None, "gpu_memory": None, "driver": None, "cuda": None,
        "processor": "one", "processors": 1, "system": "here", "versions": {"specbeam": "0"}, "pair": "made",
        "kit": VERSION, "size": "small",
    }  # fmt: skip
    return Setup(**{**given, **changes})  # type: ignore[arg-type]


def counted(job: Job, step: str) -> list[Row]:
    """How often a step was done, as a file tells that outlives its process."""
    job.work.mkdir(exist_ok=True)
    with (job.work / "done").open("a") as file:
        file.write(f"{step}\n")
    return [{"step": step, "ms": 1.5}]


def fine(job: Job) -> Steps:
    return {name: lambda name=name: counted(job, name) for name in ("first", "second")}  # type: ignore[misc]


def raising(job: Job) -> Steps:
    def wrong() -> list[Row]:
        raise Wrong("two lists are not the same", [{"lists": 2}])

    def absent() -> list[Row]:
        raise PassedOver("it is not installed. Run: pip install 'it>=1'")

    def broken() -> list[Row]:
        raise RuntimeError("a kernel failed")

    return {"wrong": wrong, "absent": absent, "broken": broken, "after": lambda: counted(job, "after")}


def absent(job: Job) -> Steps:
    raise PassedOver("this library is not installed. Run: pip install 'it>=1'")


def crashing(job: Job) -> Steps:
    def crash() -> list[Row]:
        print("the library says goodbye", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    return {"before": lambda: counted(job, "before"), "crash": crash, "behind": lambda: counted(job, "behind")}


def slow(job: Job) -> Steps:
    """Its second step takes forever until the file `quick` is there."""

    def wait() -> list[Row]:
        (job.out / "work" / "waits").write_text(str(os.getpid()))
        while not (job.work / "quick").exists():
            time.sleep(0.05)
        return counted(job, "slow")

    return {"quick": lambda: counted(job, "quick"), "slow": wait, "last": lambda: counted(job, "last")}


def part(name: str, **settings: object) -> Part:
    return Part(name, f"Part {name}", "What is shown.", f"kit_cases:{name}", **settings)  # type: ignore[arg-type]


PARTS = (
    part("fine"), part("raising"), part("absent"), part("crashing"), part("slow"),
    Part("apart", "Apart", "Each step by itself.", "kit_cases:fine", ("fine",), ("fine",), apart=True),
    Part("missing", "Missing", "It builds on what is not there.", "kit_cases:fine", ("absent",), ("absent",)),
)  # fmt: skip


def done(out: Path) -> list[str]:
    """The steps that were done, in order."""
    return (out / "work" / "done").read_text().split()
