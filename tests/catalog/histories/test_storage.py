"""Histories in object storage: pyarrow's local file system by URI, and a server that speaks S3."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from commands import user, write
from object_storage import KEYS, storage
from specbeam.catalog.errors import HistoryError
from specbeam.catalog.histories.read import HistoryRequest, Reject, read_histories
from specbeam.catalog.histories.storage import Place, Remote, StorageError, files_of, place_of
from specbeam.catalog.records import STDIN

ROWS = [("u1", ["1", "2"]), ("u2", ["3"])]


def parquet(rows: list[tuple[str, list[str]]]) -> bytes:
    table = pa.table({"user": [name for name, _ in rows], "items": [items for _, items in rows]})
    pa.parquet.write_table(table, buffer := io.BytesIO())
    return buffer.getvalue()


FILES = {
    "day/a.jsonl": b'{"user": "a", "items": ["1"]}\nno JSON\n',
    "day/b.parquet": parquet(ROWS),
    "day/more/c.txt": b"7 1 2\n",
    "day/_SUCCESS": b"",
    "day/.hidden/d.jsonl": b"{}",
    "inter.inter.json": b'{"0": [11, 4], "1": [5]}',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def outcomes(*places: Place, **options: Any) -> list[tuple[object, ...]]:
    """What is read, without the files' names."""
    return [
        (entry.user, entry.items, entry.line) if isinstance(entry, HistoryRequest) else (entry.reason, entry.line)
        for entry in read_histories(places, **options)
    ]


def test_paths_and_uris_are_told_apart() -> None:
    assert place_of("s3://bucket/x.jsonl") == Remote("s3://bucket/x.jsonl")
    for path in ("x.jsonl", "/a/b", "-", "C:/x", "a:b//c"):
        assert place_of(path) == Path(path)


def test_a_uri_is_shown_without_its_secrets() -> None:
    secret = Remote("s3://KEY:SECRET@bucket/a/b.jsonl?endpoint_override=h:1&scheme=http")
    assert str(secret) == "s3://bucket/a/b.jsonl"
    assert secret.name == "b.jsonl"
    assert secret.within("c").uri == "s3://KEY:SECRET@bucket/a/b.jsonl/c?endpoint_override=h:1&scheme=http"


def test_folders_give_their_files_by_name(folder: Path) -> None:
    expected = ["a.jsonl", "b.parquet", "more/c.txt"]
    assert files_of([folder / "day"]) == [folder / "day" / name for name in expected]
    assert files_of([Remote(f"file://{folder}/day")]) == [Remote(f"file://{folder}/day/{name}") for name in expected]
    (folder / "empty").mkdir()
    with pytest.raises(HistoryError, match="no file in this folder"):
        files_of([folder / "empty"])
    with pytest.raises(HistoryError, match="absent: does not exist; expected a history file, or a folder"):
        files_of([folder / "absent"])
    assert files_of([STDIN]) == [STDIN]
    with pytest.raises(StorageError, match="no such file, nor a folder with files"):
        files_of([Remote(f"file://{folder}/empty")])


@pytest.mark.parametrize("name", ["day/a.jsonl", "day/b.parquet", "day/more/c.txt", "inter.inter.json"])
def test_every_format_is_read_as_from_a_path(folder: Path, name: str) -> None:
    found = outcomes(Remote(f"file://{folder}/{name}"))
    assert found == outcomes(folder / name)
    assert found


def test_neighbouring_files_of_atspeed_are_joined(tmp_path: Path) -> None:
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text("1 2 3\n")
    uris = [Remote(f"file://{tmp_path}/{name}") for name in ("train.txt", "valid.txt")]
    assert outcomes(*uris, item_base=1) == [("1", ("1", "2", "1", "2"), 1)]


def test_errors_name_the_uri(folder: Path) -> None:
    with pytest.raises(StorageError, match=r"^file://.*/absent.jsonl: cannot be read: .* Check the URI"):
        outcomes(Remote(f"file://{folder}/absent.jsonl"))
    with pytest.raises(StorageError, match=r"^bogus://x/y.jsonl: cannot be read: "):
        outcomes(Remote("bogus://x/y.jsonl"))
    with pytest.raises(HistoryError, match="its beginning is not parquet but jsonl"):
        outcomes(Remote(f"file://{folder}/day/a.jsonl"), format="parquet")


def test_what_is_not_delivered_is_no_reject(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file's rest is set aside; one that cannot be fetched may be there the next time."""
    path = write(folder / "long.jsonl", *(user(f"u{i}", *range(9)) for i in range(40_000)))
    damaged = outcomes(*[folder / "day/a.jsonl"], keep_read=True)
    assert len(damaged) == 2
    reads: list[int] = []

    def broken(raw: Any, buffer: Any) -> int:
        reads.append(1)
        if len(reads) > 2:
            raise StorageError("the line is cut")
        return int(raw._file.readinto(buffer))

    monkeypatch.setattr("specbeam.catalog.histories.storage._Raw.readinto", broken)
    found: list[HistoryRequest | Reject] = []
    with pytest.raises(StorageError, match="the line is cut"):
        found.extend(read_histories([Remote(f"file://{path}")], keep_read=True))
    assert found
    assert not any(isinstance(entry, Reject) for entry in found)


@pytest.fixture(scope="module")
def ending() -> Iterator[str]:
    with storage(FILES) as ending:
        yield ending


@pytest.mark.services
def test_a_server_that_speaks_s3(ending: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    files = files_of([Remote(f"s3://bucket/day{ending}")])
    assert [str(file) for file in files] == [f"s3://bucket/day/{n}" for n in ("a.jsonl", "b.parquet", "more/c.txt")]
    assert outcomes(*files) == outcomes(*files_of([folder / "day"]))
    identity = files[0].identity() if isinstance(files[0], Remote) else ""
    assert identity.startswith("38 bytes of ")
    for absent in (f"s3://bucket/absent.jsonl{ending}", f"s3://nobody/a.jsonl{ending}"):
        with pytest.raises(StorageError, match="cannot be read"):
            outcomes(Remote(absent))


@pytest.mark.services
def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    away = Remote("s3://bucket/a.jsonl?endpoint_override=127.0.0.1:9&scheme=http")
    with pytest.raises(StorageError, match=r"^s3://bucket/a.jsonl: cannot be read: .* the credentials and the network"):
        outcomes(away)
