"""The peak memory of every history reader on a large file, with no model behind it.

Run: python -m benchmarks.reliability.memory_readers [--size 5] [--format NAME]... [--folder DIR]
Writes a file of each format (distinct users, 40 items each; AtSpeed's joined from two), reads it in a process of its
own, and prints a table: size, users, the peak of resident memory at a tenth of the file and at its end, and MB/s.
Each file is removed before the next one is written. AtSpeed's join takes about twice the size in TMPDIR as well.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

FORMATS = {
    "jsonl": ["h.jsonl"],
    "lcrec": ["h.inter.json"],
    "lcrec, ids not numbers": ["h.inter.json"],
    "atspeed": ["h.txt"],
    "atspeed, joined": ["h.txt", "i.txt"],
    "minionerec": ["h.csv"],
    "parquet": ["h.parquet"],
}
BLOCK = 10_000  # users written at once
TOLD = 50_000  # users between two lines of a reading process
READ = """
import sys
from pathlib import Path
from specbeam.catalog import read_histories
def told(users):
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(users, peak, flush=True)
users = 0
for users, _ in enumerate(read_histories(list(map(Path, sys.argv[2:]))), 1):
    if users % int(sys.argv[1]) == 0:
        told(users)
told(users)
"""


def users_of(block: int) -> Iterator[tuple[int, list[int]]]:
    """The users of a block; their items repeat from block to block."""
    return ((block * BLOCK + i, [(i * 37 + j * 101) % 12_000 for j in range(40)]) for i in range(BLOCK))


def texts(kind: str) -> tuple[str, Callable[[int, str], str], str]:
    """How a file of text begins, what it says of a user and their items ("1, 2, ..."), and how it ends."""
    return {
        "jsonl": ("", lambda user, items: f'{{"user": {user}, "items": [{items}]}}\n', ""),
        "lcrec": ('{"0": [1]', lambda user, items: f',\n"{user + 1}": [{items}]', "}\n"),
        "lcrec, ids not numbers": (
            '{"0": [1]', lambda user, items: f',\n"A{user * 0x9E3779B97F4A7C15 % 2**64:016X}": [{items}]', "}\n"
        ),
        "atspeed": ("", lambda user, items: f"{user} {items.replace(',', '')}\n", ""),
        "atspeed, joined": ("", lambda user, items: f"{user} {items.replace(',', '')}\n", ""),
        "minionerec": (
            "user_id,history_item_id,item_id\n", lambda user, items: f'A{user},"[{items}]",{user % 12_000}\n', ""
        ),
    }[kind]  # fmt: skip


def write(kind: str, path: Path, size: int, tell: Callable[[int], None]) -> int:
    """Write a file of about `size` bytes; returns how many users it has."""
    if kind == "parquet":
        return write_parquet(path, size, tell)
    begin, line, end = texts(kind)
    histories = [", ".join(map(str, items)) for _, items in users_of(0)]
    users = 0
    with path.open("w") as file:
        file.write(begin)
        while (written := file.tell()) < size:
            file.write("".join(line(users + i, items) for i, items in enumerate(histories)))
            users += BLOCK
            tell(written)
        file.write(end)
    return users + kind.startswith("lcrec")


def write_parquet(path: Path, size: int, tell: Callable[[int], None]) -> int:
    """One row group for every twenty blocks, and numbers that are not packed."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema({"user": pyarrow.int64(), "items": pyarrow.list_(pyarrow.int64())})
    items = [history for _, history in users_of(0)] * 20
    users = 0
    with ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        while path.stat().st_size < size:
            table = pyarrow.table({"user": range(users, users + len(items)), "items": items}, schema=schema)
            writer.write_table(table)
            users += len(items)
            tell(path.stat().st_size)
    return users


def peaks(paths: list[Path], users: int, tell: Callable[[int], None]) -> tuple[float, float, float]:
    """Peak memory (MB) at a tenth of the users and at the end, and seconds."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", READ, str(TOLD), *map(str, paths)]
    early = peak = done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            done, peak = map(int, line.split())
            early = early if early and done > users / 10 else peak
            tell(done)
    if process.returncode or done != users:
        raise SystemExit(f"read {done} of {users} users of {paths[0].name}, exit {process.returncode}")
    return early / 1000, peak / 1000, time.perf_counter() - begin


@click.command()
@click.option("--size", default=5.0, show_default=True, help="GB of each format.")
@click.option("--format", "names", multiple=True, type=click.Choice(list(FORMATS)), help="Default: all.")
@click.option("--folder", type=click.Path(path_type=Path), help="For the files. Default: a temporary one.")
@click.option("--json", "result", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(size: float, names: tuple[str, ...], folder: Path | None, result: Path | None) -> None:
    """Read a large file of every format; exit 1 where memory grows by more than 5 %."""
    from tqdm import tqdm

    rows = []
    print("| format | GB | users | peak at a tenth (MB) | peak at the end (MB) | ratio | MB/s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in names or FORMATS:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            if shutil.disk_usage(temporary).free < 4e9 * size:
                raise SystemExit(f"{temporary}: less than {4 * size:.1f} GB free. Choose a smaller --size.")
            paths = [Path(temporary) / file for file in FORMATS[name]]
            each, users = int(size * 1e9 / len(paths)), 0
            for path in paths:
                with tqdm(total=each, desc=f"{name}: writing", unit="B", unit_scale=True, disable=None) as bar:
                    users = write(name, path, each, lambda done, bar=bar: bar.update(done - bar.n))
            with tqdm(total=users, desc=f"{name}: reading", unit="user", disable=None) as bar:
                early, peak, seconds = peaks(paths, users, lambda done, bar=bar: bar.update(done - bar.n))
            written = sum(path.stat().st_size for path in paths)
        rows.append({"format": name, "bytes": written, "users": users, "early": early, "peak": peak})
        figures = f"{early:.0f} | {peak:.0f} | {peak / early:.3f} | {written / seconds / 1e6:.1f}"
        print(f"| {name} | {written / 1e9:.1f} | {users:,} | {figures} |", flush=True)
    if result:
        result.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    sys.exit(any(row["peak"] > 1.05 * row["early"] for row in rows))


if __name__ == "__main__":
    main()
