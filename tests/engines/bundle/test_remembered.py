"""What was looked at once is not looked at again, for as long as nothing is another."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from specbeam.catalog.errors import BundleError
from specbeam.engines.bundle import checksums, remembered
from specbeam.engines.bundle.checklist import bundle_checklist
from specbeam.engines.bundle.checksums import check_file, file_facts, looked_at_once
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.remembered import NAME

PAST = time.time() - 3600


class Reads:
    """Counts how often files are hashed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, own = 0, checksums.sha256

        def counted(path: Path, *rest: Callable[[int], object]) -> str:
            self.count += 1
            return own(path, *rest)

        patch.setattr(checksums, "sha256", counted)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reads:
    """Every file is large enough to be remembered; the cache is empty; nobody waits two seconds."""
    for module in (remembered, checksums):
        monkeypatch.setattr(module, "LARGE", 1)
    monkeypatch.setattr(remembered, "FRESH_NS", -(10**18))
    monkeypatch.setenv("SPECBEAM_CACHE", str(tmp_path / "cache"))
    return Reads(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bundle" / "in").mkdir(parents=True)
    (tmp_path / "bundle" / "in" / "a").write_bytes(b"content")
    return tmp_path / "bundle"


def tick() -> None:
    """Until the file system's clock says another time."""
    time.sleep(0.05)


def check(root: Path, **how: bool) -> None:
    facts = {"in/a": checksums.FileFacts(sha256=CONTENT, bytes=7)}
    check_file(root / "in" / "a", facts["in/a"], "again", root, **how)  # type: ignore[arg-type]


CONTENT = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"


def test_a_file_is_read_once(root: Path, reads: Reads) -> None:
    check(root)
    check(root)
    assert reads.count == 1
    check(root, anew=True)
    assert reads.count == 2
    assert {path.name for path in root.iterdir()} == {"in", NAME}


def test_a_changed_file_is_read_again(root: Path, reads: Reads) -> None:
    check(root)
    tick()
    stat = (root / "in" / "a").stat()
    (root / "in" / "a").write_bytes(b"another")  # as many bytes, and the times of before
    os.utime(root / "in" / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(BundleError, match="is damaged"):
        check(root)
    with pytest.raises(BundleError, match="is damaged"):  # which is not remembered
        check(root)
    (root / "in" / "a").write_bytes(b"content")
    check(root)
    check(root)
    assert reads.count == 4


def test_a_file_in_its_place_and_a_copy_are_read_again(root: Path, reads: Reads, tmp_path: Path) -> None:
    check(root)
    shutil.copytree(root, tmp_path / "copy")  # the record, too, and the time of modification
    check(tmp_path / "copy")
    assert reads.count == 2
    tick()
    (root / "in" / "b").write_bytes(b"another")
    shutil.copystat(root / "in" / "a", root / "in" / "b")
    (root / "in" / "b").rename(root / "in" / "a")
    with pytest.raises(BundleError, match="is damaged"):
        check(root)


def test_what_was_just_written_is_not_remembered(root: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "FRESH_NS", 10**12)
    check(root)
    check(root)
    assert reads.count == 2
    assert not (root / NAME).exists()


def test_what_changes_while_it_is_read_is_not_remembered(
    root: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = checksums.sha256

    def touched(path: Path, *rest: Callable[[int], object]) -> str:
        digest = own(path, *rest)
        os.utime(path)
        return digest

    monkeypatch.setattr(checksums, "sha256", touched)
    check(root)
    assert not (root / NAME).exists()


@pytest.mark.parametrize("content", [b"mine", b"{}", b'{"schema_version": 1}', b"\xff", b""])
def test_a_stranger_s_file_stays_and_the_cache_remembers(root: Path, reads: Reads, content: bytes) -> None:
    (root / NAME).write_bytes(content)
    check(root)
    check(root)
    assert (reads.count, (root / NAME).read_bytes()) == (1, content)


def test_a_record_of_another_schema_is_not_read_but_replaced(root: Path, reads: Reads) -> None:
    check(root)
    later = (root / NAME).read_bytes().replace(b'"schema_version":1', b'"schema_version":7')
    (root / NAME).write_bytes(later)
    check(root)
    assert reads.count == 2
    check(root)
    assert (reads.count, b'"schema_version":1' in (root / NAME).read_bytes()) == (2, True)


def test_a_folder_that_cannot_be_written(root: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    own = remembered.whole_file

    def refusing(path: Path, *, replace: bool) -> object:
        if path.parent == root:
            raise PermissionError(13, "Permission denied")
        return own(path, replace=replace)

    monkeypatch.setattr(remembered, "whole_file", refusing)
    check(root)
    check(root)
    assert (reads.count, (root / NAME).exists()) == (1, False)
    monkeypatch.setenv("SPECBEAM_CACHE", "off")
    check(root)
    check(root)
    assert reads.count == 3


def test_small_files_leave_no_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "FRESH_NS", -(10**18))
    check(root)
    assert not (root / NAME).exists()


def test_a_look_depends_on_all_that_it_says(root: Path, reads: Reads) -> None:
    looked: list[str] = []
    facts = file_facts(root)

    def look(what: str) -> None:
        looked_at_once(root, what, facts, lambda: looked.append(what))

    for what in ("trie 1 x", "trie 1 x", "trie 2 x", "trie 1 y", "trie 1 x"):
        look(what)
    assert looked == ["trie 1 x", "trie 2 x", "trie 1 y"]
    os.utime(root / "in" / "a", (PAST, PAST))
    look("trie 1 x")
    assert looked[3:] == ["trie 1 x"]
    with pytest.raises(BundleError):
        looked_at_once(root, "bad", facts, lambda: (_ for _ in ()).throw(BundleError("no")).__next__())
    with pytest.raises(BundleError):  # a fault is found each time
        looked_at_once(root, "bad", facts, lambda: (_ for _ in ()).throw(BundleError("no")).__next__())


def test_a_bundle_is_looked_at_once_and_a_check_reads_all(bundle: Path, reads: Reads) -> None:
    first = Bundle.open(bundle).items()
    count = reads.count
    again = Bundle.open(bundle).items()
    assert reads.count == count
    assert first[0] == again[0]
    assert first[1].item_tokens().tolist() == again[1].item_tokens().tolist()
    found = bundle_checklist(bundle).run()
    assert reads.count == count + found.files - len(bundle_checklist(bundle).sealed)
    assert (found.damaged, found.unlisted) == ((), ())


def test_damage_is_found_though_all_was_looked_at(bundle: Path, reads: Reads) -> None:
    Bundle.open(bundle).items()
    file = bundle / "catalog" / "trie.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    tick()
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"trie\.safetensors is damaged: its SHA-256"):
        Bundle.open(bundle).items()
