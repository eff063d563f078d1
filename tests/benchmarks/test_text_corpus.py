"""The text corpus on a shop made up here, and the training of a model on it."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.pools import text_corpus, train_text
from benchmarks.pools.text_corpus import Entry, entries_of, listed, split
from benchmarks.pools.text_items import clean, cut_sentences, description_of, load_world, shorten

PROSE = (
    "These round pens write smoothly on every paper and last for a long time in the office. "
    "Each pack holds twelve pens in four colors, so that nobody has to look for another."
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A data folder of three domains with 24 items and 12 users each."""
    for domain, root, categories in (("beauty", "Beauty", "Skin Care"), ("games", "Video Games", "PC")):
        folder = tmp_path / domain
        folder.mkdir()
        items = {
            str(i): {"title": f"{categories} item &amp; thing {i}", "categories": [root, categories, "Games"]}
            for i in range(24)
        }
        items["0"]["categories"].append("It shines in the dark and wakes up the neighbours")
        (folder / "items.json").write_text(json.dumps(items))
        lines = (
            f"{user} " + " ".join(str(1 + (user * step) % 24) for step in range(1, user + 1)) for user in range(12)
        )
        (folder / "sequential_train.txt").write_text("\n".join(lines))
    office = tmp_path / "office"
    office.mkdir()
    entry = {"title": "Gel Pen, Blue", "description": f"['{PROSE}', '']", "brand": "BIC", "categories": ""}
    items = {str(i): entry | {"title": f"Gel Pen, No. {i}"} for i in range(23)} | {"23": entry | {"description": ""}}
    (office / "items.json").write_text(json.dumps(items))
    for part in ("valid", "test"):
        with (office / f"{part}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("user_id", "history_item_id"))
            rows.writerows((f"{part}{user}", str(list(range(user + 1)))) for user in range(6))
            rows.writerow(("both", "[1, 2]" if part == "valid" else "[1, 2, 3]"))
    return tmp_path


@pytest.fixture
def corpus(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the benchmark writes for the shop."""
    monkeypatch.setattr(text_corpus, "TEST", dict.fromkeys(text_corpus.TEST, 2))
    monkeypatch.setattr(text_corpus, "POOL", dict.fromkeys(text_corpus.POOL, 3))
    monkeypatch.setattr(sys, "argv", ["", "--data", str(shop), "--output", str(tmp_path / "corpus")])
    text_corpus.main()
    return tmp_path / "corpus"


def read(corpus: Path, part: str) -> list[Entry]:
    return train_text.read_entries(corpus / f"{part}.jsonl")


def test_shop_text_becomes_prose() -> None:
    raw = "['<!-- .x {color:red} --><b>Good</b> pens.', 'They&#39;re 1amp;quot; long &amp; blue. See http://x.y/z']"
    assert clean(raw) == "Good pens. They're 1\" long & blue. See"
    assert clean("<style>p {margin:0}</style>Sold out.New soon") == "Sold out. New soon"
    assert clean("[not a list") == "[not a list"


def test_texts_end_with_a_sentence() -> None:
    assert cut_sentences("One two. Three four. Five six.", 4) == "One two. Three four."
    assert cut_sentences("One two. One two. Three.", 9) == "One two. Three."
    assert cut_sentences("One two three", 2) == ""
    assert description_of(PROSE) == PROSE
    assert description_of("An Amazon Brand.") == description_of(PROSE[:-1] + " without an end") == ""


def test_titles_are_cut_between_words() -> None:
    assert shorten("Protector compatible with Nintendo", 3) == "Protector compatible"
    assert shorten("Dove Soap, White", 2) == "Dove Soap"
    assert [listed(names) for names in ((), ("a",), ("a", "b"), ("a", "b", "c"))] == ["", "a", "a and b", "a, b and c"]


def test_items_and_users_are_read(shop: Path) -> None:
    games, office = load_world(shop, "games"), load_world(shop, "office")
    assert games.items["1"].title == "PC item & thing 1"
    assert (games.items["1"].kind, games.items["1"].path) == ("PC games", ("PC", "Games"))
    assert games.items["0"].description == "It shines in the dark and wakes up the neighbours."
    assert games.users["2"] == ["2", "4"]  # counted from 1 in the file, from 0 in items.json
    assert "0" not in games.users  # nothing bought
    assert (office.items["3"].kind, office.items["3"].area, office.items["3"].description) == ("pens", "BIC", PROSE)
    assert office.users["both"] == ["1", "2"]  # validation rows first: test rows hold what came later


def test_profiles_say_what_the_history_says(shop: Path) -> None:
    world = load_world(shop, "games")
    entries = {entry.id: entry for entry in entries_of("games", world)}
    profile = entries["games-u11"]
    assert profile.prompt.count("\n- ") == 8
    assert profile.prompt.endswith("### Profile:\n")
    assert "eight of the kind PC games" in profile.text
    assert world.items[world.users["11"][-1]].short in profile.text
    assert "games-u1" not in entries  # one item says too little
    assert entries["games-i0"].kind == "facts"
    assert "neighbours" in entries["games-i0"].text
    described = {entry.id for entry in entries_of("office", load_world(shop, "office")) if entry.kind == "description"}
    assert len(described) == 23  # the item without a description is left out


def test_splits_are_disjoint_and_do_not_depend_on_order(corpus: Path, shop: Path) -> None:
    parts = {part: read(corpus, part) for part in ("train", "pool", "test")}
    ids = [entry.id for entries in parts.values() for entry in entries]
    assert len(ids) == len(set(ids)) == 2 * (24 + 10) + 23 + 11
    assert (len(parts["test"]), len(parts["pool"])) == (12, 18)
    entries = [
        entry for domain in ("games", "office", "beauty") for entry in entries_of(domain, load_world(shop, domain))
    ]
    assert split(entries[::-1]) == parts


def test_a_model_is_trained_and_opens(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_text, "SAVE_SECONDS", 0.5)
    output = tmp_path / "model"
    arguments = ["--corpus", str(corpus), "--output", str(output), "--minutes", "0.03", "--layers", "1"]
    monkeypatch.setattr(sys, "argv", ["", *arguments, "--hidden", "64"])
    train_text.main()
    tokenizer, model = AutoTokenizer.from_pretrained(output), AutoModelForCausalLM.from_pretrained(output)
    entry = read(corpus, "test")[0]
    together = tokenizer(entry.prompt + entry.text).input_ids
    (sample,) = train_text.encode(tokenizer, [entry])
    assert sample[0].tolist() == [*together, tokenizer.eos_token_id]
    assert together[0] == tokenizer.bos_token_id
    assert tokenizer.decode(sample[0][sample[1] : -1]) == entry.text
    written = model.generate(
        **tokenizer([entry.prompt], return_tensors="pt", return_token_type_ids=False), max_new_tokens=4, do_sample=False
    )
    assert written.shape[1] <= len(tokenizer(entry.prompt).input_ids) + 4


def test_labels_are_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_text, "STEP", 1)
    ids, labels = train_text.padded([(np.array([1, 5, 6, 7, 2]), 3), (np.array([1, 8, 2]), 2)])
    assert ids.tolist() == [[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]]
    assert labels.tolist() == [[-100, -100, -100, 7, 2], [-100, -100, 2, -100, -100]]


def test_the_rate_warms_up_and_falls() -> None:
    rates = [train_text.learning_rate(part / 100) for part in range(101)]
    assert max(rates) == pytest.approx(train_text.LEARNING_RATE)
    assert rates.index(max(rates)) == 3
    assert rates[-1] == pytest.approx(train_text.LEARNING_RATE / 100)
