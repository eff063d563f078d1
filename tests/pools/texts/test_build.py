"""build-pool as a user runs it: texts in, a pool out, and what is wrong with the input."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from commands import bad, good, lines, user, write
from specbeam.catalog.errors import PoolError
from specbeam.pools import TextPool
from specbeam.pools.items.pool import ItemPool
from specbeam.pools.texts.tokenizer import fingerprint, load, named_end_token, tokenizer_file

WORDS = ["<unk>", "</s>", "likes", "board", "games", "and", "puzzles", "lamps"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with a tokenizer in it, as a text bundle has one."""
    folder = tmp_path / "bundle" / "tokenizer"
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    return folder.parent


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write(
        tmp_path / "texts.jsonl",
        {"id": "u1", "text": "likes board games"},
        {"id": 2, "text": "likes lamps", "finish": "end", "tokens": 3},
        {"id": "u3", "text": "likes puzzles and", "finish": "length"},
    )


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    return write(tmp_path / "groups.json", {"u1": "players", "u3": "players", "2": "readers"})


def texts_of(folder: Path) -> list[str]:
    """The pool's texts, words put back, in the order it has them."""
    tokens = TextPool.open(folder).source(None).tokens
    return " ".join(WORDS[token] if token < len(WORDS) else "|" for token in tokens).strip("| ").split(" | ")


def test_a_pool_of_texts(bundle: Path, texts: Path, groups: Path, tmp_path: Path) -> None:
    output = tmp_path / "pool"
    result = good("build-pool", texts, "--tokenizer", bundle, "--groups", groups, "--output", output)
    assert f"Wrote {output}: 3 texts, 10 tokens, 0.0 MB" in result.stdout
    assert "group players: 2 texts, 7 tokens" in result.stdout
    assert f"Next: specbeam generate BUNDLE PROMPTS.jsonl --pool {output} --output texts.jsonl" in result.stdout
    assert "rejected" not in result.stdout
    assert not output.with_name("pool.rejects.jsonl").exists()
    pool = TextPool.open(output)
    assert pool.tokenizer_sha256 == fingerprint(bundle / "tokenizer" / "tokenizer.json")
    assert pool.facts.reach == 16
    assert pool.group_of("2") == "readers"
    # sorted by group; no end token behind a text that was cut off
    assert texts_of(output) == ["likes board games </s>", "likes puzzles and", "likes lamps </s>"]


def test_depth_query_and_end_token_may_be_chosen(bundle: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "pool"
    (bundle / "tokenizer" / "tokenizer_config.json").unlink()
    result = good("build-pool", texts, "--tokenizer", bundle, "-o", output, "--depth", 5, "--query", 3)
    assert "no end token is known" in result.stdout
    assert TextPool.open(output).facts.reach == 8
    assert texts_of(output) == ["likes board games", "likes lamps", "likes puzzles and"]
    good("build-pool", texts, "--tokenizer", bundle, "-o", output, "--end-token", "and", "--overwrite")
    assert texts_of(output)[0] == "likes board games and"
    message = bad("build-pool", texts, "--tokenizer", bundle, "-o", output, "--end-token", "fin", "--overwrite")
    assert "the tokenizer has no token 'fin'. Name its end-of-text token with --end-token." in message


def test_unusable_lines_are_set_aside(bundle: Path, texts: Path, tmp_path: Path) -> None:
    broken = write(
        tmp_path / "broken.jsonl", "{", {"id": "u1"}, "", {"id": None, "text": "a"}, {"id": "u2", "text": ""},
        '{"id": "u2", "text": "\\udc00"}', {"id": "u5", "text": "lamps and lamps"},
    )  # fmt: skip
    with broken.open("ab") as file:
        file.write(b'{"id": "u2", "text": "\xff"}\n')
    output = tmp_path / "pool"
    result = good("build-pool", texts, broken, "--tokenizer", bundle, "-o", output)
    assert f"6 lines were rejected: see {output}.rejects.jsonl" in result.stdout
    rejects = lines(output.with_name("pool.rejects.jsonl"))
    assert [(line["file"], line["line"]) for line in rejects] == [(str(broken), n) for n in (1, 2, 4, 5, 6, 8)]
    told = ["truncated", "missing required field `text`", "$.id", "empty", "surrogate", "not UTF-8"]
    for part, line in zip(told, rejects, strict=True):
        assert part in line["reason"]
    assert TextPool.open(output).texts == 4
    good("build-pool", texts, "--tokenizer", bundle, "-o", output, "--overwrite")
    assert not output.with_name("pool.rejects.jsonl").exists()


def test_where_no_line_is_usable_there_is_no_pool(bundle: Path, tmp_path: Path) -> None:
    broken, output = write(tmp_path / "broken.jsonl", "nonsense"), tmp_path / "pool"
    assert "no text to build a pool of" in bad("build-pool", broken, "--tokenizer", bundle, "-o", output)
    assert not output.exists()
    assert len(lines(output.with_name("pool.rejects.jsonl"))) == 1


def test_wrong_input_is_told_before_any_work(bundle: Path, texts: Path, groups: Path, tmp_path: Path) -> None:
    output = tmp_path / "pool"
    ours = ("-o", output)
    assert "a pool of texts needs the tokenizer of the bundle" in bad("build-pool", texts, *ours)
    assert f"{tmp_path}: no tokenizer there" in bad("build-pool", texts, "--tokenizer", tmp_path, *ours)
    missing = tmp_path / "none.jsonl"
    assert f"{missing}: does not exist" in bad("build-pool", missing, "--tokenizer", bundle, *ours)
    named = write(tmp_path / "more.json", json.loads(groups.read_text()) | {"u7": "nobody"})
    message = bad("build-pool", texts, "--tokenizer", bundle, "--groups", named, *ours)
    assert "an empty group: no text belongs to 'nobody'. Expected texts of every group" in message
    message = bad("build-pool", texts, "--tokenizer", bundle, "--format", "jsonl", *ours)
    assert "--format: for pools of items (--items) only. Leave that out." in message
    message = bad("build-pool", texts, "--items", "--tokenizer", bundle, "--depth", 3, *ours)
    assert "--depth, --tokenizer: for pools of texts only. Leave that out." in message
    assert "is an input as well" in bad("build-pool", texts, "--tokenizer", bundle, *ours, "--rejects", texts)
    assert not output.exists()
    good("build-pool", texts, "--tokenizer", bundle, *ours)
    assert "exists already" in bad("build-pool", texts, "--tokenizer", bundle, *ours)


def test_histories_make_a_pool_of_items(bundle: Path, texts: Path, tmp_path: Path) -> None:
    histories, output = (
        write(tmp_path / "h.jsonl", user("u", "1", 2), "{", user("v"), user("w", 2, 1)),
        tmp_path / "pool",
    )
    result = good("build-pool", "--items", histories, "-o", output)
    assert f"Next: specbeam infer BUNDLE HISTORIES --pool {output} --output recs.jsonl" in result.stdout
    assert f"2 lines were rejected: see {output}.rejects.jsonl" in result.stdout
    assert [line["line"] for line in lines(output.with_name("pool.rejects.jsonl"))] == [2, 3]
    assert ItemPool.open(output).facts.kind == "items"
    with pytest.raises(PoolError, match="is a pool of kind 'items'; expected 'text'"):
        TextPool.open(output)
    good("build-pool", texts, "--tokenizer", bundle, "-o", output, "--overwrite")
    with pytest.raises(PoolError, match="is a pool of kind 'text'; expected 'items'"):
        ItemPool.open(output)


def test_the_tokenizer_is_found_and_known_again(bundle: Path, tmp_path: Path) -> None:
    file = bundle / "tokenizer" / "tokenizer.json"
    assert {tokenizer_file(path) for path in (bundle, bundle / "tokenizer", file)} == {file}
    content = json.loads(file.read_text())
    same = write(tmp_path / "same.json", content | {"truncation": {"max_length": 3}, "padding": None, "version": "9"})
    assert fingerprint(same) == fingerprint(file)
    content["model"]["vocab"]["lamp"] = 99
    assert fingerprint(write(tmp_path / "other.json", content)) != fingerprint(file)


def test_a_tokenizer_cuts_and_pads_nothing(bundle: Path) -> None:
    file = tokenizer_file(bundle)
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(file))
    assert load(file).encode("likes board games").ids == [2, 3, 4]


@pytest.mark.parametrize("content", ["{", "[]", '{"version": "1.0"}', "\xff\x00"])
def test_a_damaged_tokenizer_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(content, "latin-1")
    with pytest.raises(PoolError, match=r"tokenizer\.json(:| is damaged| is not a tokenizer)"):
        load(file)


def test_the_end_token_is_read_where_it_is_named(tmp_path: Path) -> None:
    file, config = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    assert named_end_token(file) is None
    for content, token in (({}, None), ({"eos_token": None}, None), ({"eos_token": "<e>"}, "<e>")):
        config.write_text(json.dumps(content))
        assert named_end_token(file) == token
