"""The pipeline of a run in Ray Data: tasks that read streams, and a pool of actors, each with engines of its own."""

import logging
import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, read_datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from ..catalog.errors import SpecBeamError, said
from ..runtime.runs.partition import Done, JobMaker, Key, Opens, Partition, done
from .asked import ClusterRun, Failed, Needs, Outcome, Started, Total
from .nodes import alive, check_nodes
from .reading import Ended, Input, Piece, Unread

ROUNDS = (2, 1)  # partitions that an actor is given at a time; what the first round lacks, the second does again
RETRIES = 2  # of a partition in a round, where the process that has it ends
REACH = 10.0  # seconds in which a cluster's head must answer
READERS = 8  # workers for whom one task reads
ENDED = "the process that served it ended every time. If memory ran out: fewer workers a node, or smaller batches"


class Lost(NamedTuple):
    """A partition that an actor could not do."""

    key: Key
    reason: str


class Refused(NamedTuple):
    """Engines that an actor could not open."""

    node: str
    reason: str


class Actor:
    """One of the pool: opens engines, and does partitions."""

    def __init__(self, opens: Opens) -> None:
        self._warnings: list[str] = []
        self._jobs: JobMaker | Refused
        try:
            self._jobs = opens.jobs(self._warnings.append)
        except Exception as error:  # raised from here, it would be tried again for ever
            self._jobs = Refused(ray.util.get_node_ip_address(), said(error))

    def __call__(self, table: pa.Table) -> pa.Table:
        return _table([self._outcome(piece) for piece in _pieces(table)])

    def _outcome(self, piece: Piece) -> Done[Any] | Ended | Unread | Lost | Refused:
        if not isinstance(piece, Partition):
            return piece
        if isinstance(self._jobs, Refused):
            return self._jobs
        self._warnings.clear()
        try:
            return done(self._jobs(), piece, self._warnings)
        except Exception as error:
            return Lost(piece.key, str(error) if isinstance(error, SpecBeamError) else said(error))


class Streams(Datasource):  # type: ignore[misc]
    """The input as Ray Data reads it: a task for each stream, a row for each partition."""

    def __init__(self, input: Input, wanted: list[int], skip: frozenset[Key]) -> None:
        super().__init__()
        self._input, self._wanted, self._skip = input, wanted, skip

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        tasks = self._input.tasks(self._wanted)
        return [ReadTask(partial(_read, self._input, task, self._skip, os.getcwd()), unknown) for task in tasks]

    def estimate_inmemory_data_size(self) -> int | None:
        return None


def _read(input: Input, task: list[int], skip: frozenset[Key], folder: str) -> Iterator[pa.Table]:
    with suppress(OSError):  # paths are as they were given; where there is none, none is needed
        os.chdir(folder)
    for piece in input.pieces(task, skip):
        yield _table([piece])


def _table(pieces: list[Any]) -> pa.Table:
    return pa.table({"piece": pa.array([pickle.dumps(piece) for piece in pieces], pa.large_binary())})


def _pieces(table: pa.Table) -> list[Any]:
    return [pickle.loads(piece) for piece in table.column("piece").to_pylist()]


def outcomes(run: ClusterRun) -> Iterator[Outcome]:
    """Connect to the cluster, and do the run; see `ClusterRun.outcomes`."""
    needs = run.needs
    _connect(run)
    check_nodes(needs, run.files)
    room = sum(needs.room(node["Resources"]) for node in alive())
    workers = run.workers or room
    if not workers:
        raise SpecBeamError(f"No node of the cluster has {needs}, which a worker takes. Add one, or pass --threads.")
    yield Started(len(alive()), workers, room)
    yield from _rounds(run, needs, workers)
    ray.shutdown()


def _connect(run: ClusterRun) -> None:
    """Raises `SpecBeamError` where there is no such cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    address = run.address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        own = {"num_cpus": max(os.cpu_count() or 1, (run.workers or 1) * run.needs.cpus), "include_dashboard": False}
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of many kinds
        raise SpecBeamError(
            f"Cannot connect to Ray at {address}: {said(error)}. Expected the address of a cluster's head, such as "
            "10.0.0.1:6379, asked from one of its nodes (`ray start --address=...` makes this machine one). "
            "A cluster that asks for a token takes that of its head, in ~/.ray/auth_token or RAY_AUTH_TOKEN; "
            f"{run.log} may say more."
        ) from error
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # bytes, which is: a block for every row, so that each is done by itself
    context.max_errored_blocks = -1  # what is lost is told in the end, and the others go on


def _reach(address: str) -> None:
    """Raise `OSError` at once for the address of a head where nobody listens: Ray would try it for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()


def _rounds(run: ClusterRun, needs: Needs, workers: int) -> Iterator[Outcome]:
    """Everything, and again what the first time lacked."""
    have, ends = set(run.done), dict[int, int]()
    wanted, reasons = list(range(len(run.input.streams))), dict[tuple[int, int | None], str]()
    for at_a_time in ROUNDS:
        reasons.clear()
        for outcome in _served(run, needs, workers, wanted, frozenset(have), at_a_time):
            if isinstance(outcome, Refused):
                raise SpecBeamError(f"A worker on {outcome.node} cannot serve: {outcome.reason}")
            if isinstance(outcome, Done):
                have.add(outcome.key)
                yield outcome
            elif isinstance(outcome, Ended):
                ends[outcome.stream] = outcome.partitions
                if len(ends) == len(run.input.streams):
                    yield Total(sum(ends.values()))
            else:
                reasons[_place(outcome)] = outcome.reason
        lacking = _lacking(len(run.input.streams), ends, have)
        wanted = sorted({stream for stream, _ in lacking})
        if not wanted:
            return
    for stream, number in lacking:
        yield Failed(stream, number, reasons.get((stream, number), ENDED if number is not None else "it was not read"))


def _place(outcome: Lost | Unread) -> tuple[int, int | None]:
    return outcome.key if isinstance(outcome, Lost) else (outcome.stream, None)


def _lacking(streams: int, ends: dict[int, int], have: set[Key]) -> list[tuple[int, int | None]]:
    """The partitions that are not done, and the streams that were not read to their end."""
    found: list[tuple[int, int | None]] = []
    for stream in range(streams):
        if stream not in ends:
            found.append((stream, None))
        found += [(stream, n) for n in range(ends.get(stream, 0)) if Key(stream, n) not in have]
    return found


def _served(
    run: ClusterRun, needs: Needs, workers: int, wanted: list[int], skip: frozenset[Key], at_a_time: int
) -> Iterator[Done[Any] | Ended | Unread | Lost | Refused]:
    """One round."""
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    read: Dataset = read_datasource(
        Streams(run.input, wanted, skip), num_cpus=0, concurrency=1 + workers // READERS,
        label_selector=here if run.input.local else None,
    )  # fmt: skip
    served = read.map_batches(
        Actor, batch_size=None, batch_format="pyarrow", fn_constructor_args=(run.opens,), num_cpus=needs.cpus,
        num_gpus=needs.gpus or None, compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=at_a_time),
        ray_remote_args_fn=_restarts,
    )  # fmt: skip
    for row in served.iter_rows():
        yield pickle.loads(row["piece"])


def _restarts() -> dict[str, Any]:
    """How often an actor, and what it does, is tried again."""
    return {"max_restarts": -1, "max_task_retries": RETRIES}
