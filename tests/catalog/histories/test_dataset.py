"""A dataset's folder: three splits in any of the formats, and what is wrong with a folder that is none."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specbeam.align.synthetic import ShopSize, draw_histories, draw_shop, write_shop
from specbeam.catalog.errors import CatalogError, HistoryError
from specbeam.catalog.histories.dataset import Dataset, Example, last_step
from specbeam.catalog.histories.requests import HistoryRequest

INDEX = {str(i): [f"<a_{i // 2}>", f"<b_{i % 2}>"] for i in range(10)}
HEADER = "user_id,history_item_id,item_id"


def write(folder: Path, **files: str) -> Path:
    """A dataset's folder; the last underscore of a keyword stands for the file's dot."""
    (folder / "index.json").write_text(json.dumps(INDEX))
    for name, text in files.items():
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_text(text)
    return folder


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def train(dataset: Dataset) -> list[list[int]]:
    return [history.tolist() for history in dataset.train]


# --- AtSpeed


def test_atspeed_splits_continue_each_other_and_count_from_1(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        sequential_train_txt="7 1 2 3\n8 4\n9 10 1\n",
        sequential_valid_txt="7 5\n8\n9 6 7\n",
        sequential_test_txt="8 9\n7 8 99\n9\n",
    )
    dataset = Dataset.open(folder)
    assert train(dataset) == [[0, 1, 2], [3], [9, 0]]
    assert dataset.valid == (Example("7", ("0", "1", "2"), ("4",)), Example("9", ("9", "0"), ("5", "6")))
    assert dataset.test == (
        Example("8", ("3",), ("8",)),  # nothing of the user in the validation split
        Example("7", ("0", "1", "2", "4"), ("7", "98")),  # the catalog lacks 98
    )
    assert dataset.rejects == ()  # a user with nothing in a split is no fault
    assert [(h.tolist(), a.tolist()) for h, a in dataset.valid_sequences] == [([0, 1, 2], [4]), ([9, 0], [5, 6])]


def test_atspeed_items_may_count_from_0(tmp_path: Path) -> None:
    folder = write(tmp_path, sequential_train_txt="7 0 2\n", sequential_test_txt="7 9\n")
    dataset = Dataset.open(folder, item_base=0)
    assert train(dataset) == [[0, 2]]
    assert dataset.test == (Example("7", ("0", "2"), ("9",)),)
    published = Dataset.open(folder)
    assert published.train == published.test == ()
    assert "whole numbers from 1" in published.rejects[0].reason


def test_atspeed_users_without_earlier_items_are_not_held_out(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        sequential_train_txt="1 1\n2\n\n",
        sequential_valid_txt="1 2\n2 3\n3 4\n",
        sequential_test_txt="2 5\n3 6\n4 7\n",
    )
    dataset = Dataset.open(folder)
    assert train(dataset) == [[0]]
    assert dataset.valid == (Example("1", ("0",), ("1",)),)
    assert dataset.test == (Example("2", ("2",), ("4",)), Example("3", ("3",), ("5",)))
    assert dataset.rejects == ()


def test_atspeed_lines_that_are_malformed_are_rejects_of_their_file(tmp_path: Path) -> None:
    folder = write(
        tmp_path, sequential_train_txt="1 1\n2 x 3\n3 0\n", sequential_valid_txt="1 2\n", sequential_test_txt="1 -4\n"
    )
    dataset = Dataset.open(folder)
    assert train(dataset) == [[0]]
    found = [(Path(reject.source).name, reject.line, reject.raw) for reject in dataset.rejects]
    expected = [("sequential_train.txt", 2, "2 x 3"), ("sequential_train.txt", 3, "3 0")]
    assert found == [*expected, ("sequential_test.txt", 1, "1 -4")]
    assert dataset.test == ()


def test_atspeed_without_a_training_split_begins_with_the_validation_split(tmp_path: Path) -> None:
    folder = write(tmp_path, sequential_valid_txt="1 2 3\n", sequential_test_txt="1 4\n")
    dataset = Dataset.open(folder)
    assert (dataset.train, dataset.valid) == ((), ())
    assert dataset.test == (Example("1", ("1", "2"), ("3",)),)


# --- rows with labels


def test_json_lines(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        train_jsonl=lines({"user": 1, "items": [0, 99, 2], "labels": ["3", 98]}, {"user": 2, "items": [97]}),
        valid_jsonl=lines(
            {"user": "a", "items": [1, 99], "labels": [4, 99]}, {"user": "b", "items": [1], "labels": [99]}
        ),
        test_jsonl=lines({"user": "c", "items": [5], "labels": [6]}),
    )
    dataset = Dataset.open(folder)
    assert train(dataset) == [[0, 2, 3]]  # what the catalog lacks is dropped, and a history of nothing else
    assert dataset.valid == (Example("a", ("1", "99"), ("4", "99")), Example("b", ("1",), ("99",)))
    assert [(h.tolist(), a.tolist()) for h, a in dataset.valid_sequences] == [([1], [4])]
    assert dataset.test == (Example("c", ("5",), ("6",)),)
    assert dataset.positions(["6", "99", "0", "6"]).tolist() == [6, 0, 6]
    assert dataset.positions([]).dtype == np.int64


def test_held_out_rows_without_labels_are_rejects(tmp_path: Path) -> None:
    rows = lines(
        {"user": "a", "items": [1], "labels": [2]}, {"user": "b", "items": [3, 4], "label": [2]}, {"user": "c"}
    )
    dataset = Dataset.open(write(tmp_path, train_jsonl=rows, test_jsonl=rows))
    assert train(dataset) == [[1, 2], [3, 4]]
    assert dataset.test == (Example("a", ("1",), ("2",)),)
    files = [(Path(reject.source).name, reject.line) for reject in dataset.rejects]
    assert sorted(files) == [("test.jsonl", 2), ("test.jsonl", 3), ("train.jsonl", 3)]
    assert any("user b has no labels; expected labels" in reject.reason for reject in dataset.rejects)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = write(tmp_path)
    table = pyarrow.table({"user": ["a", "b"], "items": [[0, 1], [2]], "labels": [[3], None]})
    for split in ("train", "test"):
        parquet.write_table(table, folder / f"{split}.parquet")
    dataset = Dataset.open(folder)
    assert train(dataset) == [[0, 1, 3], [2]]
    assert dataset.test == (Example("a", ("0", "1"), ("3",)),)
    assert [reject.line for reject in dataset.rejects] == [2]


def test_minionerec(tmp_path: Path) -> None:
    rows = f'{HEADER}\nA,"[1, 2]",3\nA,"[1, 2, 3]",99\nB,[],4\n'
    dataset = Dataset.open(write(tmp_path, train_csv=rows, valid_csv=rows))
    assert train(dataset) == [[1, 2, 3], [1, 2, 3]]
    assert dataset.valid == (Example("A", ("1", "2"), ("3",)), Example("A", ("1", "2", "3"), ("99",)))
    assert len(dataset.valid_sequences) == 1
    assert [(Path(r.source).name, r.line) for r in dataset.rejects] == [("train.csv", 4), ("valid.csv", 4)]


def test_splits_may_have_different_formats(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        sequential_train_txt="1 1 2\n",
        valid_csv=f"{HEADER}\n1,[5],6\n",
        test_jsonl=lines({"user": 1, "items": [7], "labels": [8]}),
    )
    dataset = Dataset.open(folder)
    assert train(dataset) == [[0, 1]]
    assert dataset.valid == (Example("1", ("5",), ("6",)),)
    assert dataset.test == (Example("1", ("7",), ("8",)),)


def test_the_synthetic_shop_is_a_dataset(tmp_path: Path) -> None:
    size = ShopSize(items=200, twins=3, train_users=30, held_out_users=10, longest=8)
    write_shop(tmp_path / "shop", size)
    dataset = Dataset.open(tmp_path / "shop")
    shop = draw_shop(size)
    assert dataset.catalog.titles == tuple(shop.titles)
    assert (dataset.index, dataset.items) == (tmp_path / "shop/index.json", tmp_path / "shop/items.json")
    assert dataset.rejects == ()
    dataset.require_training()
    for stream, (users, split) in enumerate([(30, None), (10, dataset.valid), (10, dataset.test)]):
        items, lengths = draw_histories(shop, size, users, stream)
        for row in range(users):
            known, after = items[row, : lengths[row]].tolist(), int(items[row, lengths[row]])
            if split is None:
                assert dataset.train[row].tolist() == known
            else:
                assert (split[row].history, split[row].labels) == (tuple(map(str, known)), (str(after),))


# --- folders that are none


def test_a_folder_without_a_catalog_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(lines({"user": 1, "items": [1]}))
    with pytest.raises(HistoryError, match=r"has no index.json; expected a dataset's folder"):
        Dataset.open(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(CatalogError, match=r"index.json"):
        Dataset.open(tmp_path)


def test_a_folder_without_a_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"has no histories: expected sequential_train.txt, or .*\.jsonl.*\.parquet"):
        Dataset.open(write(tmp_path, histories_jsonl=lines({"user": 1, "items": [1]})))


@pytest.mark.parametrize("other", ["train_ndjson", "train_csv", "sequential_train_txt"])
def test_two_files_for_one_split_are_refused(tmp_path: Path, other: str) -> None:
    files = {"train_jsonl": lines({"user": 1, "items": [1]}), other: ""}
    with pytest.raises(HistoryError, match=r"holds .* and .*; expected one file a split"):
        Dataset.open(write(tmp_path, **files))


def test_a_file_that_cannot_be_read_as_a_whole_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"test.csv, line 1: got the columns"):
        Dataset.open(write(tmp_path, test_csv="user,items\n"))


def test_training_needs_training_rows(tmp_path: Path) -> None:
    dataset = Dataset.open(write(tmp_path, test_jsonl=lines({"user": 1, "items": [1], "labels": [2]})))
    assert (dataset.train, dataset.items) == ((), None)
    with pytest.raises(HistoryError, match=r"has no training rows: expected .*\(0 lines were unusable\)"):
        dataset.require_training()
    (tmp_path / "train.jsonl").write_text("oops\n" + lines({"user": 1, "items": [99]}))
    with pytest.raises(HistoryError, match=r"\(1 lines were unusable, the first: .*train.jsonl, line 1: .*malformed"):
        Dataset.open(tmp_path).require_training()


def test_last_steps_of_training_histories() -> None:
    """What came last, or the labels; a history of one item has nothing before it."""
    rows = [HistoryRequest("a", ("1", "2", "3"), 1), HistoryRequest("b", ("1",), 2), HistoryRequest("c", ("1",), 3)]
    rows[2] = replace(rows[2], labels=("4", "5"))
    assert [last_step(row) for row in rows] == [
        Example("a", ("1", "2"), ("3",)),
        None,
        Example("c", ("1",), ("4", "5")),
    ]
