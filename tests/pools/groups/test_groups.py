"""Groups of users and items: what is found, that it is the same every time, and the files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from commands import bad, good, lines, only, user, write
from specbeam.catalog.errors import CatalogError, HistoryError, OptionError, PoolError
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.pools.groups.file import group_sizes, read_groups, write_groups
from specbeam.pools.groups.items import Described, group_at_random, group_by_category, group_by_title, read_items
from specbeam.pools.groups.users import LAYERS, embedded, group_users

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
SIZES = (40, 25, 15)


def requests(histories: Sequence[tuple[str, Sequence[str]]]) -> list[HistoryRequest]:
    return [HistoryRequest(name, tuple(items), line) for line, (name, items) in enumerate(histories, 1)]


def planted(seed: int = 0) -> tuple[list[HistoryRequest], dict[str, str]]:
    """80 users of three tastes, who share an item of another taste now and then; and the tastes, largest first."""
    rng = np.random.default_rng(seed)
    taste = {f"u{n}": group for n, group in enumerate(np.repeat(range(3), SIZES).tolist())}
    histories = []
    for name, group in taste.items():
        own = rng.choice(20, 6, replace=False) + 20 * group
        histories.append((name, [f"i{item}" for item in (*own, rng.integers(60))]))
    return requests(histories), {name: str(group) for name, group in taste.items()}


@pytest.mark.parametrize("method", ["svd", "lightgcn"])
def test_tastes_are_found_and_numbered_from_the_largest(method: str) -> None:
    entries, tastes = planted()
    grouping = group_users(entries, method, 3, 8)
    assert grouping.groups == tastes
    assert group_sizes(grouping.groups) == dict(zip("012", SIZES, strict=True))
    assert grouping.silhouette is not None
    assert grouping.silhouette > 0.3


@pytest.mark.parametrize("method", ["svd", "lightgcn", "random"])
def test_the_order_of_histories_and_items_does_not_matter(method: str) -> None:
    entries, _ = planted(1)
    expected = group_users(entries, method, 4, 8, seed=5)
    rng = np.random.default_rng(2)
    shuffled = [
        HistoryRequest(entry.user, tuple(rng.permutation(entry.items).tolist()), entry.line)
        for entry in (entries[place] for place in rng.permutation(len(entries)))
    ]
    assert group_users(shuffled, method, 4, 8, seed=5) == expected


def test_a_user_s_lines_are_summed() -> None:
    entries, _ = planted()
    halves = requests([(e.user, half) for e in entries for half in (e.items[:3], e.items[3:])])
    assert group_users(halves, "svd", 3, 8) == group_users(entries, "svd", 3, 8)


def test_lightgcn_s_embedding_is_the_propagated_one() -> None:
    """Against LightGCN's own rule: multiply by the normalised graph, layer by layer, and take the mean."""
    dense = np.random.default_rng(3).random((12, 9)) / 5
    left, strength, right = np.linalg.svd(dense, full_matrices=False)
    users, items = left * np.sqrt(strength), right.T * np.sqrt(strength)
    layers = [users]
    for _ in range(LAYERS):
        users, items = dense @ items, dense.T @ users
        layers.append(users)
    mean = np.mean(layers, axis=0)
    got = embedded(csr_matrix(dense), 9, 0, propagated=True)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=1e-5)  # singular vectors have no sign


def test_random_groups_follow_from_id_and_seed_alone() -> None:
    ids = [f"u{n}" for n in range(3000)]
    everybody = group_users(requests([(name, "a") for name in ids]), "random", 3, seed=1)
    assert everybody.silhouette is None
    half = group_users(requests([(name, "bc") for name in ids[::2]]), "random", 3, seed=1)
    assert half.groups == {name: everybody.groups[name] for name in ids[::2]}
    assert half.groups == group_at_random(ids[::2], 3, seed=1).groups
    assert min(group_sizes(everybody.groups).values()) > 900
    other = group_users(requests([(name, "a") for name in ids]), "random", 3, seed=2).groups
    assert 900 < sum(other[name] == everybody.groups[name] for name in ids) < 1100


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([], "got 0 users for 3 groups"),
        ([("u1", "ab"), ("u1", "cd"), ("u1", "e")], "got 1 users for 3 groups"),
        ([(f"u{n}", "a") for n in range(5)], "the 5 users are of 1 kinds only; expected at least 3"),
        ([(f"u{n}", "ab"[n % 2]) for n in range(9)], "the 9 users are of 2 kinds only; expected at least 3"),
        ([(f"u{n}", "a" * n) for n in range(1, 5)], "the 4 users are of 1 kinds only"),
    ],
)
def test_users_that_cannot_be_grouped(histories: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        group_users(requests(histories), "svd", 3)


def test_as_many_groups_as_users() -> None:
    grouping = group_users(requests([("x", "ab"), ("y", "cd"), ("z", "ef")]), "svd", 3)
    assert sorted(grouping.groups.values()) == ["0", "1", "2"]
    assert grouping.silhouette is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(names, st.lists(names, min_size=1, max_size=4)), max_size=8), st.integers(2, 4))
def test_any_histories_are_grouped_or_refused(histories: list[tuple[str, list[str]]], groups: int) -> None:
    try:
        grouping = group_users(requests(histories), "svd", groups, 3)
    except HistoryError:
        return
    assert grouping.groups.keys() == {name for name, _ in histories}
    assert set(grouping.groups.values()) == {str(group) for group in range(groups)}


def test_one_group_is_none() -> None:
    with pytest.raises(OptionError, match="got 1 groups; expected at least 2"):
        group_users(requests([("u", "a")]), "random", 1)


ITEMS = {
    "0": Described("Red lamp", ["Home", "Lighting", "Lamps"]),
    "1": Described("Blue lamp", ["Home", "Lighting", "Lamps"]),
    "2": Described("Oak chair", ["Home", "Seats"]),
    "3": Described("Pine chair", "Home, Seats, Chairs"),
    "4": Described("Rug", ["Home", "Rugs"]),
    "5": Described("Thing", ["Home"]),
    "6": Described("No category", []),
    "7": Described("No category either", ""),
    "8": Described(None, None),
}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0, ["Home"] * 6),
        (1, ["Lighting", "Lighting", "Seats", "Seats", "other", "other"]),
        (2, ["Lighting > Lamps", "Lighting > Lamps", "other", "other", "other", "other"]),
        (3, ["other"] * 6),
    ],
)
def test_categories(level: int, expected: list[str]) -> None:
    assert group_by_category(ITEMS, level, 2).groups == dict(zip("012345", expected, strict=True))


def test_items_without_categories_name_the_other_way() -> None:
    with pytest.raises(CatalogError, match=r"got 1 items without categories; expected such as .*--method title"):
        group_by_category({"8": ITEMS["8"]})


def test_titles() -> None:
    things = {"ink": ["black", "colour", "photo"], "pen": ["gel", "ball", "felt"], "binder": ["ring", "view", "slim"]}
    titles = [f"{kind} {thing} no {n}" for thing, kinds in things.items() for kind in kinds for n in range(3)]
    items = {str(n): Described(title) for n, title in enumerate(titles)} | {"none": Described(), "empty": Described("")}
    grouping = group_by_title(items, 3, 3)
    assert grouping.groups.keys() == set(map(str, range(27)))
    of_things = [{grouping.groups[str(n)] for n in range(start, start + 9)} for start in (0, 9, 18)]
    assert sorted(map(len, of_things)) == [1, 1, 1]
    assert len(set.union(*of_things)) == 3
    assert group_by_title(dict(reversed(items.items())), 3, 3) == grouping


def test_titles_that_cannot_be_grouped() -> None:
    with pytest.raises(CatalogError, match="got 1 items with a title for 2 groups"):
        group_by_title({"0": Described("lamp"), "1": Described()}, 2)
    with pytest.raises(CatalogError, match="no word is in two of the 2 titles"):
        group_by_title({"0": Described("lamp"), "1": Described("chair")}, 2)
    with pytest.raises(CatalogError, match="the 3 items are of 1 kinds only"):
        group_by_title({name: Described("lamp") for name in "abc"}, 2)


@settings(max_examples=30)
@given(groups=st.dictionaries(names, names, min_size=1))
def test_written_groups_are_read_again(tmp_path_factory: pytest.TempPathFactory, groups: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("groups") / "groups.json"
    write_groups(path, groups)
    assert read_groups(path) == groups


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated; expected one JSON object of ids and group names"),
        (b'{"u1": "0"', "truncated; expected one JSON object"),
        (b'[["u1", "0"]]', "Expected `object`, got `array`.*specbeam group-users"),
        (b'{"u1": 3}', "Expected `str`, got `int` - at .*; expected one JSON object"),
        (b'{"u1": ""}', "length >= 1"),
        (b"{}", "holds no ids"),
        (b'{"u1": "0", "u2": "1", "u1": "1"}', "got 'u1' more than once; expected every id once"),
        (b'{"u1": "\xff"}', r"not UTF-8 \(byte 8\)"),
    ],
)
def test_files_that_are_no_groups(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "groups.json"
    path.write_bytes(content)
    with pytest.raises(PoolError, match=message) as raised:
        read_groups(path)
    assert str(raised.value).startswith(str(path))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="No such file"):
        read_groups(tmp_path / "groups.json")
    with pytest.raises(CatalogError, match="No such file"):
        read_items(tmp_path / "items.json")


def test_group_users_writes_groups_and_says_how_large_they_are(tmp_path: Path) -> None:
    entries, tastes = planted()
    histories = write(tmp_path / "histories.jsonl", *(user(entry.user, *entry.items) for entry in entries))
    output = tmp_path / "out" / "groups.json"
    result = good("group-users", histories, "-o", output, "--dimension", 8, "--prefix", "shop-")
    assert read_groups(output) == {f"shop-{name}": taste for name, taste in tastes.items()}
    assert f"Wrote {output}: 80 users in 3 groups" in result.stdout
    assert "  0: 40 (50%)\n  1: 25 (31%)\n  2: 15 (19%)\n" in result.stdout
    assert "mean silhouette" in result.stdout
    assert [path.name for path in output.parent.iterdir()] == ["groups.json"]
    assert "exists already" in bad("group-users", histories, "-o", output)
    good("group-users", histories, "-o", output, "--method", "random", "--overwrite")
    assert read_groups(output).keys() == tastes.keys()


def test_unusable_lines_go_to_the_rejects(tmp_path: Path) -> None:
    entries, tastes = planted()
    usable = [user(entry.user, *entry.items) for entry in entries]
    histories = write(tmp_path / "histories.jsonl", "{", *usable, user("late"))
    output = tmp_path / "groups.json"
    result = good("group-users", histories, "-o", output)
    rejects = tmp_path / "groups.json.rejects.jsonl"
    assert f"2 lines were rejected: see {rejects}" in result.stdout
    assert [line["line"] for line in lines(rejects)] == [1, 82]
    assert read_groups(output).keys() == tastes.keys()


def test_nothing_usable(tmp_path: Path) -> None:
    histories = write(tmp_path / "histories.jsonl", "{", "[]")
    output, rejects = tmp_path / "groups.json", tmp_path / "bad.jsonl"
    message = bad("group-users", histories, "-o", output, "--rejects", rejects)
    assert "got 0 users for 3 groups" in message
    assert len(lines(rejects)) == 2
    only(output)
    message = bad("group-users", write(histories, "{"), "-o", histories, "--overwrite")
    assert "is an input as well" in message


def test_group_items(tmp_path: Path) -> None:
    entries = {name: {"title": item.title, "categories": item.categories} for name, item in ITEMS.items()}
    items = tmp_path / "items.json"
    items.write_text(json.dumps(entries | {"9": {"title": "More", "brand": ["ignored"]}}))
    output = tmp_path / "groups.json"
    result = good("group-items", items, "-o", output, "--min-size", 2, "--prefix", "shop-i")
    assert read_groups(output)["shop-i3"] == "Seats"
    assert f"Wrote {output}: 6 items in 3 groups" in result.stdout
    assert "4 items are in no group: they have no categories" in result.stdout
    good("group-items", items, "-o", output, "--method", "title", "--groups", 2, "--overwrite")
    assert len(read_groups(output)) == 9
    good("group-items", items, "-o", output, "--method", "random", "--groups", 2, "--overwrite")
    assert len(read_groups(output)) == 10
    message = bad("group-items", items, "-o", output, "--overwrite", "--method", "title", "--level", 2)
    assert "--level cannot be combined with --method title" in message
    items.write_text('{"0": {"title": 5}}')
    message = bad("group-items", items, "-o", output, "--overwrite")
    assert "Expected `str | null`, got `int`" in message
    items.write_text("{}")
    assert "holds no items" in bad("group-items", items, "-o", tmp_path / "other.json")
