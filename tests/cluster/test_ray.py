"""Runs on a Ray cluster of several processes: the same bytes as on one machine, whatever happens meanwhile."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import good, user, write
from nan_cases import marked
from object_storage import storage
from ray_cluster import Cluster, environment, started, workers_of
from specbeam.runtime.runs.log import JournalFiles
from specbeam.runtime.runs.parts import MANIFEST
from tiny_bundle import Tiny, break_rows
from worker_cases import alive

pytestmark = pytest.mark.services
FIXED = ["-k", "5", "--threads", "1", "--speculation", "fixed", "--batch-size", "1"]
PARTITION, USERS = 4 * 32, 1500  # of batches of one
BOUND = 240  # seconds that a run may take on a machine that does much else


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head, and two nodes with two processors each."""
    with started(tmp_path_factory.mktemp("ray"), 2, 2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with lines of every kind."""
    entries: list[object] = [user(f"u{i}", *((i * j) % 40 for j in range(1, 2 + i % 9))) for i in range(USERS)]
    entries[3:3] = ["no JSON", {"user": "new", "items": []}, {"user": "odd", "items": ["unknown"]}]
    entries[700:700] = [user("own", 1, 2) | {"k": 3, "allow": [4, 5, 6]}, user("none", 1) | {"allow": ["unknown"]}]
    return write(tmp_path_factory.mktemp("histories") / "many.jsonl", *entries)


@pytest.fixture(scope="module")
def whole(tiny: Tiny, many: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """What one process makes of it: results and rejects."""
    output = tmp_path_factory.mktemp("whole") / "recs"
    good("infer", tiny.bundle, many, "-o", output, *FIXED)
    return output.read_bytes(), output.with_name("recs.rejects.jsonl").read_bytes()


def command(cluster: Cluster, bundle: Path, histories: object, output: Path, *options: object) -> list[str]:
    where = ["--ray", "--ray-address", cluster.address]
    words = ["infer", bundle, histories, "-o", output, *FIXED, *where, *options]
    return [sys.executable, "-m", "specbeam.cli", *map(str, words)]


def begun(words: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ran(words: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=BOUND)


def made(output: Path) -> tuple[bytes, bytes]:
    """The partitions' files one behind the other, once they are what the manifest says."""
    manifest = json.loads((output / MANIFEST).read_text())
    files = [[part[kind]["file"] for part in manifest["parts"] if part[kind]] for kind in ("results", "rejects")]
    assert sorted([MANIFEST, *files[0], *files[1]]) == sorted(path.name for path in output.iterdir())
    results, rejects = (b"".join((output / name).read_bytes() for name in names) for names in files)
    return results, rejects


def kept(output: Path, number: int) -> list[Path]:
    """The files of the first partitions, once there are so many."""
    folder, until = JournalFiles.of(output).results, time.monotonic() + BOUND
    while time.monotonic() < until:
        if len(found := sorted(folder.glob("part-*.jsonl")) if folder.is_dir() else []) >= number:
            return found
        time.sleep(0.02)
    raise AssertionError("no partition was done")


def test_one_worker_and_what_is_told(
    tiny: Tiny, cluster: Cluster, many: Path, whole: tuple[bytes, bytes], tmp_path: Path
) -> None:
    done = ran(command(cluster, tiny.bundle, many, tmp_path / "recs", "--workers", 1))
    assert done.returncode == 0, done.stderr
    assert made(tmp_path / "recs") == whole
    told = done.stderr.splitlines()
    assert told[0].startswith("Ray: 3 nodes, 1 workers; connected and checked after ")
    assert told[1].startswith("start-up: the first partition began after ")
    assert "user none allows" in told[2]
    assert len(told) == 3  # and nothing of Ray's
    assert "lines were rejected: see" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recs"]
    manifest = json.loads((tmp_path / "recs" / MANIFEST).read_text())
    assert manifest["partition"] == PARTITION
    assert len(manifest["parts"]) == -(-(USERS + 5) // PARTITION)
    again = ran(command(cluster, tiny.bundle, many, tmp_path / "recs"))
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_worker_is_killed(
    tiny: Tiny, cluster: Cluster, many: Path, whole: tuple[bytes, bytes], tmp_path: Path
) -> None:
    process = begun(command(cluster, tiny.bundle, many, tmp_path / "recs", "--workers", 4))
    kept(tmp_path / "recs", 1)
    workers = [pid for node in cluster.nodes for pid in workers_of(node.process.pid)]
    assert len(workers) == 4
    os.kill(workers[0], signal.SIGKILL)
    _, told = process.communicate(timeout=BOUND)
    assert process.returncode == 0, told
    assert made(tmp_path / "recs") == whole


def test_the_run_is_killed_and_goes_on(
    tiny: Tiny, cluster: Cluster, many: Path, whole: tuple[bytes, bytes], tmp_path: Path
) -> None:
    words = command(cluster, tiny.bundle, many, tmp_path / "recs", "--workers", 2)
    stopped = begun(words)
    first = len(kept(tmp_path / "recs", 1))
    stopped.send_signal(signal.SIGINT)
    _, told = stopped.communicate(timeout=BOUND)
    assert stopped.returncode == 130, told
    assert f"are kept in {tmp_path / 'recs'}.partial. Run the same command again to go on" in told
    killed = begun(words)
    kept(tmp_path / "recs", first + 2)
    killed.kill()
    killed.communicate()
    before = {path.name: path.stat().st_ino for path in kept(tmp_path / "recs", first + 2)}
    other = ran([*words, "--exclude-history"])
    assert other.returncode == 1
    assert "is of an interrupted run that differs in: exclude_history (False, now True)" in other.stderr
    done = ran(words)
    assert done.returncode == 0, done.stderr
    went_on = re.search(r"Going on with an interrupted run: ([0-9]+) partitions with", done.stderr)
    assert went_on
    assert first + 2 <= int(went_on[1]) <= len(before)  # one that was being written is none
    assert made(tmp_path / "recs") == whole
    after = {path.name: path.stat().st_ino for path in (tmp_path / "recs").iterdir()}
    assert len(before.items() & after.items()) >= int(went_on[1])  # they are not made again


def test_object_storage(tiny: Tiny, cluster: Cluster, many: Path, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    """A folder of it: as the files that were put there, under the names they have there."""
    with storage({"day/many.jsonl": many.read_bytes(), "day/more.txt": b"7 1 2\n8 1 x\n", "day/_READY": b""}) as ending:
        done = ran(command(cluster, tiny.bundle, f"s3://bucket/day{ending}", tmp_path / "recs", "--workers", 4))
        assert done.returncode == 0, done.stderr
        absent = ran(command(cluster, tiny.bundle, f"s3://bucket/absent{ending}", tmp_path / "absent"))
    assert "s3://bucket/absent: there is no such file, nor a folder with files. Check the URI." in absent.stderr
    results, rejects = made(tmp_path / "recs")
    assert results.startswith(whole[0])
    assert json.loads(results.splitlines()[-1])["user"] == "7"
    named = whole[1].replace(str(many).encode(), b"s3://bucket/day/many.jsonl")
    assert rejects.startswith(named)
    assert json.loads(rejects.splitlines()[-1]) == {
        "file": "s3://bucket/day/more.txt", "line": 2, "raw": "8 1 x",
        "reason": "got the item 'x'; expected `user item item ...`, items being whole numbers from 0",
    }  # fmt: skip


def test_texts(cluster: Cluster, tmp_path: Path) -> None:
    from specbeam.engines.build import build_engine
    from specbeam.export.text import export_text
    from text_cases import PROMPTS
    from tiny_models import make_text_tokenizer, tiny_checkpoint

    bundle = tmp_path / "bundle"
    export_text(tiny_checkpoint(tmp_path / "model", tokenizer=make_text_tokenizer(), tied=True), bundle)
    build_engine(bundle, threads=1)
    entries = [{"id": f"u{i}", "prompt": PROMPTS[i % len(PROMPTS)], "max_new_tokens": 1 + i % 9} for i in range(300)]
    prompts = write(tmp_path / "prompts.jsonl", *entries[:200], "no JSON", *entries[200:])
    options = ["generate", bundle, prompts, "--threads", 1, "--speculation", "fixed", "--batch-size", 1]
    good(*options, "-o", tmp_path / "texts")
    where = ["--ray", "--ray-address", cluster.address, "-o", tmp_path / "spread", "--workers", 2]
    done = ran([sys.executable, "-m", "specbeam.cli", *map(str, [*options, *where])])
    assert done.returncode == 0, done.stderr
    assert made(tmp_path / "spread") == (
        (tmp_path / "texts").read_bytes(),
        (tmp_path / "texts.rejects.jsonl").read_bytes(),
    )
    assert "tokens per target call" in done.stdout


def test_a_partition_that_always_fails(tiny: Tiny, bundle: Path, cluster: Cluster, tmp_path: Path) -> None:
    """An engine that gives no numbers for any of it: it is named, the others are kept."""
    token, bad, sharing = marked(tiny)
    fine = next(item for item in tiny.item_ids if item not in sharing)
    break_rows(bundle, [token])
    entries = [user(f"u{i}", bad if i // PARTITION == 1 else fine) for i in range(3 * PARTITION)]
    histories = write(tmp_path / "histories.jsonl", *entries)
    done = ran(command(cluster, bundle, histories, tmp_path / "recs", "--workers", 1))
    assert done.returncode == 1
    assert f"1 of the partitions could not be done, though they were tried again: {histories}, partition 1: " in (
        " ".join(done.stderr.split())
    )
    assert "whole batches failed" in done.stderr
    names = [path.name for path in kept(tmp_path / "recs", 2)]
    assert names == ["part-000000-00000000.jsonl", "part-000000-00000002.jsonl"]
    assert not (tmp_path / "recs").exists()


def test_a_node_is_killed(tiny: Tiny, cluster: Cluster, many: Path, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    process = begun(command(cluster, tiny.bundle, many, tmp_path / "recs", "--workers", 4))
    kept(tmp_path / "recs", 1)
    node = cluster.nodes[-1]
    assert workers_of(node.process.pid)
    node.kill()
    _, told = process.communicate(timeout=BOUND)
    assert process.returncode == 0, told
    assert made(tmp_path / "recs") == whole


def test_no_cluster(tiny: Tiny, many: Path, tmp_path: Path) -> None:
    words = ["infer", tiny.bundle, many, "-o", tmp_path / "recs", "--ray", "--ray-address", "127.0.0.1:9"]
    done = ran([sys.executable, "-m", "specbeam.cli", *map(str, words)])
    assert done.returncode == 1
    assert "Cannot connect to Ray at 127.0.0.1:9: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_this_package(tiny: Tiny, cluster: Cluster, many: Path, tmp_path: Path) -> None:
    """Its Python finds no such module: as where nobody installed it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] == 'specbeam':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    node = cluster.add(1, PYTHONPATH=path)
    done = ran(command(cluster, tiny.bundle, many, tmp_path / "recs", "--workers", 1))
    assert alive(node.process.pid)
    assert done.returncode == 1
    message = " ".join(done.stderr.split())
    assert "of the cluster lacks the package specbeam: its Python does not find it. Install what runs here" in message
    assert not (tmp_path / "recs").exists()
