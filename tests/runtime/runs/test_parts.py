"""A folder of partitions: how it is written, given up, gone on with and refused. No cluster is needed for it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from specbeam.catalog.errors import OutputTakenError, SpecBeamError
from specbeam.runtime.runs.log import JournalFiles, RunFacts, kept_requests
from specbeam.runtime.runs.partition import Done, Key, partitions
from specbeam.runtime.runs.parts import MANIFEST, PartFolder, read_manifest
from specbeam.runtime.runs.windows import Outcomes

NAMES = [["a.jsonl"], ["b.txt", "c.txt"]]


def facts(**options: object) -> RunFacts:
    return RunFacts(verb="infer", bundle="1", engine="e", read={"histories 1": "2"}, options={"k": 5} | options)


def done(stream: int, number: int, results: bytes = b'{"line":1}\n', rejects: bytes = b"") -> Done[Outcomes]:
    counts = Outcomes(served=results.count(b"\n"), rejected=rejects.count(b"\n"))
    return Done(Key(stream, number), results, rejects, counts, None, [], 0.0)


@contextmanager
def opened(output: Path, *, overwrite: bool = False, **options: object) -> Iterator[PartFolder[Outcomes]]:
    with PartFolder.open(output, facts(**options), Outcomes(), overwrite=overwrite) as folder:
        yield folder


def test_partitions_depend_on_the_stream_alone() -> None:
    found = list(partitions(3, range(10), 4))
    assert [part.key for part in found] == [(3, 0), (3, 1), (3, 2)]
    assert [part.entries for part in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(partitions(0, [], 4)) == []


def test_a_folder_and_what_its_manifest_says(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with opened(output) as folder:
        for part in (done(1, 0, rejects=b"r\n"), done(0, 1), done(0, 0, b"1\n2\n"), done(0, 2, b"", b"bad\n")):
            folder.add(part)
            assert not output.exists()
        folder.finish(NAMES, 4)
    manifest = read_manifest(output)
    assert [part.inputs[0] for part in manifest.parts] == ["a.jsonl", "a.jsonl", "a.jsonl", "b.txt"]
    assert [part.number for part in manifest.parts] == [0, 1, 2, 0]
    files = [file for part in manifest.parts for file in (part.results, part.rejects) if file]
    assert sorted([MANIFEST, *(file.file for file in files)]) == sorted(path.name for path in output.iterdir())
    for file in files:
        data = (output / file.file).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest.counts == {"served": 4, "rejected": 2}
    assert (manifest.run, manifest.partition) == (facts(), 4)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_goes_on_with_what_is_there(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with opened(output) as folder:
        folder.add(done(0, 0))
        folder.add(done(0, 2, rejects=b"bad\n"))
    paths = JournalFiles.of(output)
    with paths.log.open("ab") as log:
        log.write(b'0123456789abcdef {"type":"part","torn')
    (paths.results / "part-000000-00000001.jsonl").write_bytes(b"not complete")
    assert kept_requests(output) == 2
    with opened(output) as folder:
        assert set(folder.done) == {Key(0, 0), Key(0, 2)}
        assert (folder.counts.served, folder.counts.rejected) == (2, 1)
        folder.add(done(0, 0, b"another\n"))  # it came twice: the first stays
        folder.finish(NAMES, 4)
    assert sorted(path.name for path in output.iterdir()) == [
        "part-000000-00000000.jsonl", "part-000000-00000002.jsonl", MANIFEST, "rejects-000000-00000002.jsonl"
    ]  # fmt: skip
    assert (output / "part-000000-00000000.jsonl").read_bytes() == b'{"line":1}\n'


def test_what_others_put_beside_the_partitions_stays(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with opened(output) as folder:
        folder.add(done(0, 0))
        (folder.kept / "notes.txt").write_text("of somebody")
        (folder.kept / ".ipynb_checkpoints").mkdir()
        (folder.kept / "part-000007-00000000.jsonl").write_text("half")  # of a partition that was not complete
        folder.finish(NAMES, 4)
    assert sorted(path.name for path in output.iterdir()) == [
        ".ipynb_checkpoints", "notes.txt", "part-000000-00000000.jsonl", MANIFEST
    ]  # fmt: skip
    assert (output / "notes.txt").read_text() == "of somebody"


def test_a_run_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "out") as folder:
        folder.finish(NAMES, 4)
    assert [*tmp_path.iterdir()] == []


def test_one_that_ended_before_it_had_said_so_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with opened(output) as folder:
        folder.add(done(0, 0))
        log = JournalFiles.of(output).log.read_bytes()
        folder.finish(NAMES, 4)
    JournalFiles.of(output).log.write_bytes(log)
    with opened(output) as folder:
        assert folder.complete
        assert folder.counts.served == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_runs_and_what_was_edited_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with opened(output) as folder:
        folder.add(done(0, 0))
    with pytest.raises(SpecBeamError, match=r"interrupted run that differs in: k \(5, now 6\)"), opened(output, k=6):
        pytest.fail("opened")
    part = JournalFiles.of(output).results / "part-000000-00000000.jsonl"
    part.write_bytes(b"edited\n")
    with pytest.raises(SpecBeamError, match=r"part-000000-00000000\.jsonl was edited or removed"), opened(output):
        pytest.fail("opened")
    part.unlink()
    with pytest.raises(SpecBeamError, match="was edited or removed"), opened(output):
        pytest.fail("opened")
    with opened(output, overwrite=True, k=6) as folder:
        assert not folder.done
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    for overwrite, message in ((False, "exists already"), (True, f"it has no {MANIFEST}, so SpecBeam did not write")):
        with pytest.raises(SpecBeamError, match=message), opened(output, overwrite=overwrite):
            pytest.fail("opened")
    assert (output / "thesis.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_appeared_meanwhile_stays(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with opened(output) as folder:
        folder.add(done(0, 0))
        output.mkdir()
        with pytest.raises(OutputTakenError, match=r"kept in .*out\.kept-1"):
            folder.finish(NAMES, 4)
    assert list(output.iterdir()) == []
    assert read_manifest(tmp_path / "out.kept-1").counts == {"served": 1}


def test_one_of_ours_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for number in range(2):
        with opened(output, overwrite=True) as folder:
            folder.add(done(0, number))
            folder.finish(NAMES, 4)
    assert sorted(path.name for path in output.iterdir()) == ["part-000000-00000001.jsonl", MANIFEST]


def test_a_manifest_of_another_version(tmp_path: Path) -> None:
    with opened(tmp_path / "out") as folder:
        folder.add(done(0, 0))
        folder.finish(NAMES, 4)
    path = tmp_path / "out" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 9}))
    with pytest.raises(SpecBeamError, match="follows schema 9; this version reads 1"):
        read_manifest(path.parent)
