"""The list of parts: what each shows, what it builds on, and where its steps are."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.hardware.kit.record import Row, Setup
from benchmarks.hardware.kit.sizes import SIZES, Sizes
from specbeam.catalog.files import Frozen


class PassedOver(Exception):
    """Raised by a part or a step that has nothing to do here; it says why."""


class Wrong(Exception):
    """Raised by a step whose numbers are not what they have to be; the rows are kept."""

    def __init__(self, reason: str, rows: Iterable[Row]) -> None:
        super().__init__(reason)
        self.rows = tuple(rows)


class Job(Frozen, frozen=True):
    """What a part's process is told."""

    out: Path
    setup: Setup
    histories: Path | None = None  # of the pair's users; None: the public ones of the pair, or made up

    @property
    def sizes(self) -> Sizes:
        return SIZES[self.setup.size]

    @property
    def device(self) -> str:
        return self.setup.device

    @property
    def work(self) -> Path:
        """What parts make for each other."""
        return self.out / "work"


Steps = Mapping[str, Callable[[], Iterable[Row]]]


@dataclass(frozen=True)
class Part:
    """One part of the kit. Its function takes a `Job`, and the backend that the part is of, if it is of one; it gives
    the part's steps by name, and may raise `PassedOver`."""

    name: str
    title: str
    shows: str  # what its table tells, for the report
    function: str  # "module:function", imported in the part's process
    needs: tuple[str, ...] = ()  # parts whose results it reads; they may be passed over
    without: tuple[str, ...] = ()  # of these, those without which it can do nothing
    backend: str | None = None
    in_order: bool = False  # later steps build on earlier ones: one that was stopped is not put off
    apart: bool = False  # every step in a process of its own: what it measures is the process

    def steps(self, job: Job) -> Steps:
        module, _, name = self.function.partition(":")
        of = () if self.backend is None else (self.backend,)
        steps: Steps = getattr(import_module(module), name)(job, *of)
        return steps


KIT = "benchmarks.hardware.kit"
BACKENDS = ("torch", "onnxruntime", "tensorrt", "tensorrt-rtx")
PARITIES = tuple(f"parity-{backend}" for backend in BACKENDS)
NAMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_ON_ENGINES = ("pair", *PARITIES)

PARTS = (
    Part(
        "libraries", "What is here",
        "Every backend tried on this machine: whether it computes, and what it says where it does not.",
        f"{KIT}.libraries:steps",
    ),
    Part(
        "pair", "The pair",
        "The target and the draft that all other parts run, and its lists by float32 on the CPU: the reference.",
        f"{KIT}.pair:steps", in_order=True,
    ),
    *(
        Part(
            f"parity-{backend}", f"Parity of {NAMES[backend]} with the CPU",
            "Per precision: the largest difference of a log-probability to the exported graph on the CPU; how many "
            "lists are those of float32 on the CPU, and the mean share of its items that they hold.",
            f"{KIT}.parity:steps", ("pair",), ("pair",), in_order=True, backend=backend,
        )
        for backend in BACKENDS
    ),
    *(
        Part(
            f"lossless-{backend}", f"Speculation changes no list: {NAMES[backend]}",
            "Lists with drafts beside those without, by the same engine. In float32 they must be the same up to "
            "near-ties; in half precision, where calls of other shapes round otherwise, the share of items in common "
            "is told: with the same engine's plain lists, and with those of float32 on the CPU.",
            f"{KIT}.lossless:steps", ("pair", f"parity-{backend}"), ("pair",), backend=backend,
        )
        for backend in BACKENDS
    ),
    Part(
        "latency", "A call of the pair",
        "Milliseconds of a call against batch, cached and new tokens, of the target and of the draft.",
        f"{KIT}.latency:steps", _ON_ENGINES, ("pair",),
    ),
    Part(
        "calls", "A call of larger targets",
        "Llama-shaped models of random weights: milliseconds of a call beside the time that reading their weights "
        "takes at the memory's measured speed.",
        f"{KIT}.speculation:calls",
    ),
    Part(
        "speculation", "Plain beam search and speculation at forced acceptance",
        "The same models: drafts that are right for so many levels of every round, what they cost included, beside "
        "plain beam search.",
        f"{KIT}.speculation:searches",
    ),
    Part(
        "pools", "Drafts from a pool of histories",
        "Target calls and milliseconds a user by what drafts come from.",
        f"{KIT}.pools:steps", _ON_ENGINES, ("pair",),
    ),
    Part(
        "texts", "Text, drafted from what was written before",
        "A small decoder of random weights: tokens a target call and a second, and how many texts are those of greedy "
        "decoding.",
        f"{KIT}.texts:steps",
    ),
    Part(
        "memory", "Memory",
        "Megabytes that opening an engine takes, and the most while it serves; of the device and of the process.",
        f"{KIT}.memory:steps", _ON_ENGINES, ("pair",), apart=True,
    ),
)  # fmt: skip
