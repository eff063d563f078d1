"""Files and directories that are whole or absent, and lists of item ids."""

import hashlib
import os
import stat

import msgspec
import pytest

from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.files import Frozen, sha256, whole_directory, whole_file
from specbeam.catalog.items import Catalog
from specbeam.runtime import ItemFilter
from specbeam.runtime.runs.item_lists import ItemList, filter_of


class Settings(Frozen, frozen=True):
    size: int
    name: str = "x"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_appears_only_when_done(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    with whole_file(path, replace=True) as file:
        file.write(b"one\n")
        assert not path.exists()
    assert path.read_bytes() == b"one\n"
    assert names(path.parent) == ["out.jsonl"]


def test_whole_file_keeps_the_old_content_on_failure(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def half_written():
        with whole_file(path, replace=True) as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half_written()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_whole_file_replaces_and_is_readable_by_others(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    mask = os.umask(0o022)
    try:
        with whole_file(path, replace=True) as file:
            file.write(b"new")
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_whole_directory_appears_only_when_done(tmp_path):
    path = tmp_path / "bundle"
    with whole_directory(path, kind="kind") as part:
        assert part.parent == tmp_path
        (part / "a").write_text("a")
        assert not path.exists()
    assert names(path) == ["a"]
    assert names(tmp_path) == ["bundle"]


def test_whole_directory_leaves_nothing_on_failure(tmp_path):
    path = tmp_path / "bundle"

    def interrupted():
        with whole_directory(path, kind="kind") as part:
            (part / "a").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_whole_directory_refuses_an_existing_one(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    with pytest.raises(SpecBeamError, match=r"exists already\..*--overwrite"), whole_directory(path, kind="kind"):
        pytest.fail("the body must not run")
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("fails", [False, True])
def test_whole_directory_replaces_wholly_or_not_at_all(tmp_path, fails):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_text("old")
    try:
        with whole_directory(path, kind="old", replace=True) as part:
            (part / "new").write_text("new")
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert names(path) == (["old"] if fails else ["new"])
    assert names(tmp_path) == ["bundle"]


def test_a_directory_of_another_kind_is_never_replaced(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    (path / "holiday").write_text("dear")
    with pytest.raises(SpecBeamError, match="it has no manifest"), whole_directory(path, kind="manifest", replace=True):
        pass
    assert names(path) == ["holiday"]


def test_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a"
    content = bytes(range(256)) * 5000
    path.write_bytes(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()
    path.write_bytes(content[:-1] + b"\0")
    assert sha256(path) != hashlib.sha256(content).hexdigest()


def test_frozen_is_immutable_and_refuses_unknown_keys():
    settings = msgspec.json.decode(b'{"size": 3}', type=Settings)
    assert settings == Settings(size=3)
    with pytest.raises(AttributeError):
        settings.size = 4
    with pytest.raises(msgspec.ValidationError, match="unknown field `sise`"):
        msgspec.json.decode(b'{"size": 3, "sise": 4}', type=Settings)


# --- lists of item ids

CATALOG = Catalog(("7", "8", "é", "a b"), (("<x>",),) * 4, (None,) * 4)


def quiet(message):
    pytest.fail(f"warned: {message}")


def test_a_list_of_items_is_one_id_a_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff7\r\n\n  \n8 \na b\né\n7".encode())
    assert ItemList.read(path).ids == {"7", "8", "a b", "é"}
    assert ItemList.read(path).known(CATALOG, warn=quiet) == set(CATALOG.item_ids)


def test_ids_that_the_catalog_lacks_are_warned_of_and_left_out(tmp_path):
    path, told = tmp_path / "list.txt", []
    path.write_text(f"9\n7\n{'0' * 200}\n")
    assert ItemList.read(path).known(CATALOG, warn=told.append) == {"7"}
    shown = f"(e.g. {'0' * 80!r}); they are ignored"  # the first of them, and not at any length
    assert told == [f"{path}: 2 of 3 items are not in the catalog {shown}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"9\n10\n", r"no item of the catalog in it \(got '10', for example\)\. Expected item ids, .* such as '7'"),
        (b"\n", r"no item of the catalog in it \(got an empty file\)\. Expected item ids, one a line"),
        (b"7\n\xff\n", r"list\.txt: not UTF-8; expected item ids, one a line\. Save the file as UTF-8"),
        (None, r"list\.txt: cannot be read: No such file or directory\. Check the path"),
    ],
)
def test_a_list_without_a_known_item_is_refused(tmp_path, content, message):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecBeamError, match=message):
        ItemList.read(path).known(CATALOG, warn=quiet)


def test_a_filter_of_lists(tmp_path):
    a, b = (ItemList(tmp_path, frozenset(ids)) for ids in (["7", "8"], ["8", "é"]))
    assert filter_of(None, None, CATALOG, warn=quiet) is None
    assert filter_of(a, None, CATALOG, warn=quiet) == ItemFilter(a.ids)
    assert filter_of(None, b, CATALOG, warn=quiet) == ItemFilter(None, b.ids)
    assert filter_of(a, b, CATALOG, warn=quiet) == ItemFilter(a.ids, b.ids)
