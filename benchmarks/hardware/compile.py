"""What TensorRT for RTX compiles, on a machine without a GPU: by architecture, precision and GPU; by shape; by size.

    python -m benchmarks.hardware.compile --parts matrix,sweep          # a few minutes
    python -m benchmarks.hardware.compile --parts sizes --sizes '110 M' # each in a process of its own: peak memory

A graph is built by the engine's own path; a row that was refused has the message. "Fused": attentions with a kernel of
their own, of all attentions in a call of the first optimization profile.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from tqdm import tqdm

from benchmarks.hardware.compile_cases import LENGTH, SIZES, Case, cache_of, matrix, sweep
from benchmarks.shared import dump, print_table
from specbeam.catalog.errors import SpecBeamError
from specbeam.engines.bundle.facts import EnginePrecision
from specbeam.engines.tensorrt.build import Kind, TrtOptions, build_plan
from specbeam.engines.tensorrt.flavour import RTX
from specbeam.engines.tensorrt.kernels import count_kernels
from specbeam.engines.tensorrt.layers import read_layers
from specbeam.engines.tensorrt.profiles import profiles_for

WAYS: tuple[tuple[EnginePrecision, str | None], ...] = (
    ("fp32", None), ("fp16", None), ("bf16", None), ("int8-weights", "weight8"), ("int8-weights", "weight4"),
)  # fmt: skip


def compiled(
    case: Case, precision: EnginePrecision, method: str | None, targets: tuple[str, ...], work: Path
) -> dict[str, Any]:
    """One plan: seconds, megabytes, attentions that were fused; or why there is none."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        try:
            RTX.check_targets(targets, precision, cache_of(precision))
            graph = case.prepared(work / "exported", precision, method, Path(name))
            return planned(case, precision, graph, targets, Path(name))
        except SpecBeamError as error:
            return {"refused": " ".join(str(error).split())}


def planned(
    case: Case, precision: EnginePrecision, graph: Path, targets: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    """The plan of a prepared graph, in a folder."""
    facts, start = case.facts(), perf_counter()
    build_plan(
        graph, folder / "model.plan", facts, profiles_for(case.role, facts, case.limits, LENGTH), limits=case.limits,
        identifier_length=LENGTH, kind=Kind(RTX, precision, cache_of(precision)),
        options=TrtOptions(compute_capabilities=targets),
    )  # fmt: skip
    seconds, size = perf_counter() - start, (folder / "model.plan").stat().st_size / 1e6
    first = count_kernels(read_layers(folder, ""), facts.layers)[0]
    return {"seconds": seconds, "megabytes": size, "fused": first.fused, "attentions": facts.layers}


def run_matrix(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Architectures, precisions, roles and kinds of GPU."""
    found = []
    plans = [(case, *way, target) for case in matrix() for way in WAYS for target in RTX.targets]
    for case, precision, method, target in tqdm(plans, desc="matrix", disable=None):
        one = compiled(case, precision, method, (target,), work)
        found.append({"case": case.what, "role": case.role, "precision": method or precision, "target": target, **one})
    rows: list[list[object]] = []
    for way in (method or precision for precision, method in WAYS):
        for target in RTX.targets:
            same = [f for f in found if (f["precision"], f["target"]) == (way, target)]
            built = [f for f in same if "refused" not in f]
            seconds = sum(f["seconds"] for f in built) / max(len(built), 1)
            fused = f"{sum(f['fused'] for f in built)} of {sum(f['attentions'] for f in built)}"
            rows.append([way, target, len(built), len(same) - len(built), f"{seconds:.2f}", fused])
    print(f"\n{len(found)} graphs, {sum('refused' not in f for f in found)} built:\n")
    print_table(["precision", "GPU", "built", "refused", "s a plan", "attentions fused"], rows)
    for reason in sorted({f["refused"] for f in found if "refused" in f}):
        print(f"refused: {reason}")
    return found


def run_sweep(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Shapes, forms and limits, for the default's GPUs at once."""
    found, rows = [], list[list[object]]()
    for case in tqdm(list(sweep()), desc="sweep", disable=None):
        for precision in ("fp32", "fp16", "bf16"):
            one = compiled(case, precision, None, (), work)
            found.append({"case": case.what, "precision": precision, **one})
        told = ["refused" if "refused" in f else f"{f['fused']} of {f['attentions']}" for f in found[-3:]]
        took = [f["seconds"] for f in found[-3:] if "seconds" in f]
        rows.append([case.what, *told, f"{max(took, default=0):.1f}"])
    print_table(["", "fp32, fused", "fp16, fused", "bf16, fused", "s at most"], rows)
    for one in found:
        if "refused" in one:
            print(f"refused: {one['case']}, {one['precision']}: {one['refused']}")
    return found


def run_sizes(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Large models, each way in a process of its own."""
    found, rows = [], list[list[object]]()
    ways = [(size, precision) for size in options.sizes.split(",") for precision in options.precisions.split(",")]
    for size, precision in tqdm(ways, desc="sizes", disable=None):
        command = [sys.executable, "-m", "benchmarks.hardware.compile", "--one", size, precision, "--work", str(work)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            one: dict[str, Any] = {"refused": f"it ended with status {done.returncode}"}
        else:
            one = msgspec.json.decode(done.stdout.splitlines()[-1])
        found.append({"size": size, "precision": precision, **one})
        numbers = [one["refused"][:60]] if "refused" in one else [
            f"{one['seconds']:.0f}", f"{one['graph'] / 1e3:.2f}", f"{one['megabytes'] / 1e3:.2f}",
            f"{one['before']:.2f}", f"{one['peak']:.2f}", f"{one['fused']} of {one['attentions']}",
        ]  # fmt: skip
        rows.append([size, precision, *numbers])
    heads = ["", "precision", "s", "graph, GB", "plan, GB", "GiB before", "GiB at most", "attentions fused"]
    print_table(heads, rows)
    return found


def one(size: str, way: str, work: Path) -> None:
    """Compile one large model, and tell of this process's memory: exported first by another one."""
    case, method = SIZES[size], way if way.startswith("weight") else None
    precision: Any = "int8-weights" if method else way
    with tempfile.TemporaryDirectory(dir=work) as name:
        graph = work / f"{size}-{way}" / "prepared" / "model.onnx"
        if not graph.is_file():
            status = _forked(lambda: case.prepared(work / "exported", precision, method, graph.parent.parent))
            if status:
                raise SystemExit(status)
        before = _peak()
        try:
            told = planned(case, precision, graph, (), Path(name))
        except SpecBeamError as error:
            told = {"refused": " ".join(str(error).split())}
        else:
            read = sum(file.stat().st_size for file in graph.parent.iterdir()) / 1e6
            told |= {"before": before, "peak": _peak(), "graph": read}
    print(msgspec.json.encode(told).decode())


def _forked(work: Callable[[], object]) -> int:
    """Do something in a child, whose memory does not count here; its exit status."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _peak() -> float:
    """GiB that this process had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


PARTS = {"matrix": run_matrix, "sweep": run_sweep, "sizes": run_sizes}


def parts(text: str) -> list[str]:
    chosen = text.split(",")
    if not set(chosen) <= PARTS.keys():
        raise argparse.ArgumentTypeError(f"got {text!r}; expected some of {', '.join(PARTS)}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=parts, default=["matrix", "sweep"], help="default: matrix,sweep")
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"default: {','.join(SIZES)}")
    parser.add_argument("--precisions", default="fp32,fp16,bf16,weight8", help="of sizes")
    parser.add_argument("--work", type=Path, help="where exported graphs stay (default: nowhere)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", help="a JSON file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        work = options.work or Path(name)
        (work / "exported").mkdir(parents=True, exist_ok=True)
        if options.one:
            one(*options.one, work)
            return
        dump(options.output, {part: PARTS[part](options, work) for part in options.parts})


if __name__ == "__main__":
    main()
