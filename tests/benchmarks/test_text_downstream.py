"""The downstream check sees what it is for: text about a user helps, that of somebody else does not."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pools import text_downstream
from commands import write

KINDS = ("lipstick", "shampoo")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 items of two kinds, 80 users who keep to one kind, in AtSpeed's files; and what was written of the users."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    kinds = {str(item): KINDS[item % 2] for item in range(40)}
    (folder / "index.json").write_text(json.dumps({item: [f"<a_{item}>"] for item in kinds}))
    (folder / "items.json").write_text(
        json.dumps({i: {"title": f"{k} {i}", "categories": [k]} for i, k in kinds.items()})
    )
    rows = [rng.permutation(20)[:8] * 2 + user % 2 + 1 for user in range(80)]
    for part, chosen in (("train", slice(0, 5)), ("valid", slice(5, 6)), ("test", slice(6, 8))):
        (folder / f"sequential_{part}.txt").write_text(
            "".join(f"{user} {' '.join(map(str, row[chosen]))}\n" for user, row in enumerate(rows))
        )
    texts = [{"id": f"x-u{user}", "text": f"The customer buys {KINDS[user % 2]}."} for user in range(80)]
    write(folder / "strict.jsonl", *texts)
    write(folder / "relaxed.jsonl", *({**line, "text": line["text"].replace("The", "This")} for line in texts))
    return folder


def test_the_table(shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"{name}={shop / name}.jsonl" for name in ("strict", "relaxed")]
    options = ["--data", str(shop), "--prefix", "x-", "--dimension", "4", "--resamples", "20"]
    monkeypatch.setattr(sys, "argv", ["text_downstream.py", *files, *options])
    text_downstream.main()
    head, _, _, _, *table = capsys.readouterr().out.splitlines()
    assert head == "80 users, 240 items bought later, 4 others for each"
    rows = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in table)}
    assert list(rows) == ["strict", "relaxed", "strict, of somebody else", "no user text"]
    assert [rows[name][0] for name in ("strict", "relaxed")] == ["100.0%", "0.0%"]
    auc = {name: float(cells[1].split()[0]) for name, cells in rows.items()}
    assert auc["strict"] > 0.7 > 0.6 > auc["strict, of somebody else"]
    assert auc["relaxed"] == pytest.approx(auc["strict"], abs=0.02)
    assert 0.35 < auc["no user text"] < 0.6
    assert float(rows["no user text"][2].split()[0]) == pytest.approx(auc["no user text"] - auc["strict"], abs=1e-3)


def test_pairs(shop: Path) -> None:
    opened = text_downstream.open_shop(shop)
    users = sorted(opened.users)
    pairs = text_downstream.draw_pairs(opened, users, 3, popular=True, seed=0)
    for number, user in enumerate(users):
        later, before = opened.users[user]
        own = pairs.user == number
        assert set(pairs.item[own & pairs.clicked].tolist()) == later
        others = pairs.item[own & ~pairs.clicked].tolist()
        assert len(others) == 3 * len(later)
        assert not set(others) & (later | before)
