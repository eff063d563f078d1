"""Options as values: what a verb gets in place of the options of one subject."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import Verb, given

if TYPE_CHECKING:
    from ..catalog.histories.requests import HistoryRequest
    from ..catalog.histories.storage import Place
    from ..catalog.records import Reject
    from ..runtime import Batching, Drafting, EngineChoice, Verification


def collected(name: str, build: Callable[..., Any]) -> Callable[[Verb], Verb]:
    """A verb's parameter `name`: what `build` makes of those of the verb's options that its own parameters name."""
    own = signature(build).parameters

    def decorate(verb: Verb) -> Verb:
        @wraps(verb)
        def taking(**values: Any) -> Any:
            taken = {key: values.pop(key) for key in own if key in values}
            return verb(**values, **{name: build(**taken)})

        return taking

    return decorate


def _verification(
    mode: Any, scoring: Any, slack: float | None = None, temperature: float | None = None, seed: int | None = None
) -> "Verification":
    from ..runtime import Verification

    return Verification(mode, scoring, slack, temperature, seed)


def _drafting(
    drafter: Any, pool: Path | None, speculation: Any = None, draft_width: int | None = None,
    draft_length: int | None = None,
) -> "Drafting":  # fmt: skip
    from ..runtime import Drafting, DraftShape

    by_hand = given({"width": draft_width, "length": draft_length})
    return Drafting(drafter, pool, speculation, DraftShape(**by_hand) if by_hand else None)


def _engine(engine: str | None, threads: int | None) -> "EngineChoice":
    from ..runtime import EngineChoice

    return EngineChoice(engine, threads=threads)


@dataclass(frozen=True)
class Running:
    """What serves a long run: engines, in so many processes."""

    engine: "EngineChoice"
    workers: int | None  # None: as many as there are for it
    cluster: "Cluster | None" = None  # None: this machine


@dataclass(frozen=True)
class Cluster:
    """Whether a run is spread over one, and which."""

    ray: bool
    ray_address: str | None

    def check(self) -> None:
        """Raise `OptionError` for an address of a cluster that is not asked for."""
        from ..catalog.errors import OptionError

        if self.ray_address is not None and not self.ray:
            raise OptionError("--ray-address: for --ray only. Leave it out, or add that.")


def _running(
    engine: str | None, threads: int | None, workers: int | None, ray: bool, ray_address: str | None
) -> Running:
    cluster = Cluster(ray, ray_address)
    cluster.check()
    several = ray or (workers or 1) > 1
    return Running(_engine(engine, threads or (1 if several else None)), workers, cluster if ray else None)


def _batching(batch_size: int, memory: int | None = None) -> "Batching":
    from ..runtime import Batching

    return Batching(batch_size, memory)


verification_value = collected("verification", _verification)
drafting_value = collected("drafting", _drafting)
engine_value = collected("engine", _engine)
running_value = collected("running", _running)
batching_value = collected("batching", _batching)


@dataclass(frozen=True)
class HistoryFiles:
    """Which requests are read, and how."""

    histories: tuple["Place", ...]
    format: str | None
    item_base: int
    limit: int | None = None

    def here(self) -> tuple[Path, ...]:
        """The files, where all of them are this machine's. Raises `OptionError` for URIs."""
        from ..catalog.errors import OptionError

        for place in self.histories:
            if not isinstance(place, Path):
                raise OptionError(f"{place}: URIs are for infer --ray. Fetch the file, and pass its path.")
        return tuple(place for place in self.histories if isinstance(place, Path))

    def entries(self, *, keep_read: bool = False) -> "Iterator[HistoryRequest | Reject]":
        """The requests, and a reject for every line that is none; keep_read: see `read_histories`."""
        from ..catalog.histories.read import read_histories

        read = read_histories(self.histories, format=self.format, item_base=self.item_base, keep_read=keep_read)
        return islice(read, self.limit)


@dataclass(frozen=True)
class Writing:
    """Where the lines of a long run go; - is standard output."""

    output: Path
    rejects: Path | None
    strict_input: bool
    overwrite: bool


histories_value = collected("files", HistoryFiles)
writing_value = collected("writing", Writing)
