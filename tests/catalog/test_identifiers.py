"""Identifiers in a tokenizer's ids: looked up or taken apart, ended or not; or refused with the reason."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from specbeam.catalog import Catalog
from specbeam.catalog.errors import CatalogError
from specbeam.catalog.identifiers import compile_identifiers, identifier_ids, is_glued, is_text
from specbeam.catalog.trie import PAD
from tiny_models import END, identifier_tokens, make_text_tokenizer, make_tokenizer, text_catalog

SPECIAL = make_tokenizer(identifier_tokens())
TEXT = make_text_tokenizer()


def catalog_of(*identifiers: Sequence[str]) -> Catalog:
    names = tuple(f"i{number}" for number in range(len(identifiers)))
    return Catalog(names, tuple(map(tuple, identifiers)), (None,) * len(identifiers))


def refuse(message: str, tokenizer: PreTrainedTokenizerFast, *identifiers: Sequence[str], end: str = "auto") -> str:
    with pytest.raises(CatalogError, match=message) as caught:
        compile_identifiers(tokenizer, catalog_of(*identifiers), end)  # type: ignore[arg-type]
    return str(caught.value)


def unpadded(rows: np.ndarray) -> list[list[int]]:
    return [[token for token in row if token != PAD] for row in rows.tolist()]


# --- ids


def test_tokens_of_the_vocabulary_are_looked_up() -> None:
    a, b = SPECIAL.convert_tokens_to_ids(["<a_1>", "<b_2>"])
    catalog = catalog_of(["<a_1>", "<b_2>"], ["<b_2>"])
    assert identifier_ids(SPECIAL, catalog).tolist() == [[a, b], [b, PAD]]
    assert not is_text(SPECIAL, catalog)


def test_text_has_the_tokenizers_ids_of_its_strings_put_together(tmp_path: Path) -> None:
    catalog = Catalog.load(text_catalog(tmp_path / "index.json"), None)
    ids = identifier_ids(TEXT, catalog)
    assert is_text(TEXT, catalog)
    expected = [TEXT("".join(tokens), add_special_tokens=False)["input_ids"] for tokens in catalog.identifiers]
    assert unpadded(ids) == expected
    assert ids.shape == (len(expected), max(map(len, expected)))
    assert max(map(len, expected)) > max(map(len, catalog.identifiers))  # several tokens a string
    in_other_strings = catalog_of(*(["".join(tokens)] for tokens in catalog.identifiers))
    assert np.array_equal(identifier_ids(TEXT, in_other_strings), ids)


def test_items_may_share_a_text() -> None:
    ids = identifier_ids(TEXT, catalog_of([" teapot"], [" kettle"], [" teapot"]))
    assert ids[0].tolist() == ids[2].tolist() != ids[1].tolist()


def test_tokens_written_in_one_string_are_found_in_it() -> None:
    ids = identifier_ids(SPECIAL, catalog_of(["<a_1><b_2>"], ["<c_0>"]))
    assert unpadded(ids) == [SPECIAL.convert_tokens_to_ids(["<a_1>", "<b_2>"]), [SPECIAL.vocab["<c_0>"]]]


@pytest.mark.parametrize(
    ("tokenizer", "identifiers", "message"),
    [
        (
            SPECIAL,
            [["<a_1>", "<b_47>"], ["<a_0>", "<b_1>"]],
            "1 of the catalog's 4 tokens are not in .*: '<b_47>'. Add",
        ),
        (TEXT, [["<a_1>", "<b_47>"]], "2 of the catalog's 2 tokens are not in .*: '<a_1>', '<b_47>'. Add"),
        (SPECIAL, [["<a_1><b_47>"], ["<a_1><b_1>"]], "1 of the catalog's 2 tokens are not in .*: '<a_1><b_47>'"),
        (TEXT, [[" lamp"], [" lamp", "<|end|>"]], r"1 of the catalog's 2 tokens are not in .*: '<\|end\|>'"),
        (SPECIAL, [["<a_1>", "a_47"]], r"not in .*: 'a_47'\. .*\(Others, such as '<a_1>', are added tokens\. If"),
    ],
)
def test_what_should_be_a_token_is_never_taken_apart(
    tokenizer: PreTrainedTokenizerFast, identifiers: list[list[str]], message: str
) -> None:
    refuse(message, tokenizer, *identifiers)


def test_text_that_the_tokenizer_does_not_know_is_refused() -> None:
    refuse("does not know the text of 1 identifiers: it writes <unk> into 'sofa'", SPECIAL, ["user likes"], ["sofa"])
    without = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"oak": 0})))
    refuse("cannot take them apart as text, 'oak', 'ash': .*UNK", without, ["oak"], ["ash"])
    letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"o": 0, "a": 1, "k": 2}, [])))
    assert unpadded(identifier_ids(letters, catalog_of(["oak"]))) == [[0, 1, 2]]
    refuse("makes no token of 1 identifiers: 'tin'", letters, ["oak"], ["tin"])


def test_different_identifiers_of_one_text_are_refused() -> None:
    same = r"the same text .* joined by '': \(\(' desk', ' lamp'\), \(' desk lamp',\)\)\. .*\(--join ' ' "
    refuse(same, TEXT, [" desk", " lamp"], [" desk lamp"])
    words = Tokenizer(WordLevel({"oak": 0, "lamp": 1}, unk_token="lamp"))
    words.pre_tokenizer = WhitespaceSplit()
    blind = PreTrainedTokenizerFast(tokenizer_object=words)  # that its unknown token is one is not declared
    refuse(r"same ids .*: \(\('oak ash',\), \('oak elm',\)\)", blind, ["oak ash"], ["oak elm"])


def test_what_joins_the_strings_of_an_identifier_tells_them_apart() -> None:
    apart = catalog_of([" desk", "lamp"], [" desklamp"])
    refuse("the same text", TEXT, [" desk", "lamp"], [" desklamp"])
    expected = TEXT([" desk lamp", " desklamp"], add_special_tokens=False)["input_ids"]
    assert unpadded(identifier_ids(TEXT, apart, " ")) == expected
    assert [is_glued(apart, join, ",") for join in ("", " ")] == [True, False]
    assert not is_glued(catalog_of([" desk", " lamp"], ["<a_1>", "<b_2>"]), "", "")
    assert [is_glued(catalog_of(["oak"], ["ash"]), "", separator) for separator in ("", ",")] == [True, False]


# --- the end token


def test_identifiers_of_one_length_have_no_end_token() -> None:
    found = compile_identifiers(SPECIAL, catalog_of(["<a_1>", "<b_2>"], ["<a_1>", "<b_3>"]))
    assert found.end_token is None
    assert np.array_equal(found.trie.item_tokens(), found.tokens)


@pytest.mark.parametrize("end", ["auto", "always"])
def test_identifiers_of_unequal_length_have_one(end: str) -> None:
    found = compile_identifiers(SPECIAL, catalog_of(["<a_1>", "<b_2>"], ["<a_1>"]), end)  # type: ignore[arg-type]
    assert found.end_token == END
    assert unpadded(found.trie.item_tokens()) == [[*row, END] for row in unpadded(found.tokens)]
    assert (found.tokens.shape[1], found.trie.length) == (2, 3)


def test_identifiers_of_one_length_have_one_on_request() -> None:
    found = compile_identifiers(SPECIAL, catalog_of(["<a_1>", "<b_2>"]), "always")
    assert (found.end_token, found.trie.item_tokens()[0, -1], found.trie.length) == (END, END, 3)


def test_the_length_that_counts_is_in_tokens() -> None:
    assert compile_identifiers(TEXT, catalog_of([" desk lamp"], [" armchair"])).end_token == END
    two = catalog_of([" desk lamp"], [" lamp", " walnut"])
    assert len({len(row) for row in unpadded(identifier_ids(TEXT, two))}) == 1
    assert compile_identifiers(TEXT, two).end_token is None


def test_without_an_end_token_no_identifier_may_begin_another() -> None:
    never = compile_identifiers(SPECIAL, catalog_of(["<a_1>", "<b_2>"], ["<a_2>"]), "never")
    assert (never.end_token, never.trie.identifiers) == (None, 2)
    rows = [["<a_1>", "<b_2>"], ["<a_2>"], ["<a_1>"], ["<a_2>"], ["<a_1>", "<b_2>", "<c_1>"]]
    message = refuse(
        r"^2 identifiers are the beginning of others \(items \('i2', 'i0'\), ", SPECIAL, *rows, end="never"
    )
    assert "--end-token auto" in message


def test_a_tokenizer_without_an_end_token() -> None:
    tokenizer = make_tokenizer(identifier_tokens())
    tokenizer.eos_token = None
    assert compile_identifiers(tokenizer, catalog_of(["<a_1>"], ["<a_2>"])).end_token is None
    for rows, end in (([["<a_1>"], ["<a_2>", "<b_1>"]], "auto"), ([["<a_1>"]], "always")):
        message = refuse(r"identifiers of 1 to [12] tokens are to end with .* it has none", tokenizer, *rows, end=end)
        assert "Set tokenizer.eos_token" in message
        assert "--end-token never" in message


def test_the_end_token_stands_behind_an_identifier_only() -> None:
    rows = [["<a_1>", "</s>"], ["<a_2>", "<b_1>", "</s>"], ["<a_3>"]]
    message = refuse("of 2 items hold the end token '</s>' already: items 'i0', 'i1'", SPECIAL, *rows)
    assert "leave it out of the index file, or export with --end-token never" in message
    assert compile_identifiers(SPECIAL, catalog_of(*rows), "never").trie.length == 3
    refuse("of 1 items hold the end token", TEXT, [" lamp</s>"], [" desk"], end="always")


tokens = st.lists(st.sampled_from(["<a_0>", "<a_1>", "<b_0>"]), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(tokens, min_size=1, max_size=12), st.sampled_from(["auto", "always", "never"]))
def test_the_trie_holds_the_identifiers_and_their_end(rows: list[list[str]], end: str) -> None:
    distinct = {tuple(row) for row in rows}
    if end == "never" and any(a != b and b[: len(a)] == a for a in distinct for b in distinct):
        refuse("are the beginning of others", SPECIAL, *rows, end=end)
        return
    found = compile_identifiers(SPECIAL, catalog_of(*rows), end)  # type: ignore[arg-type]
    needed = end == "always" or (end == "auto" and len(set(map(len, rows))) > 1)
    assert found.end_token == (END if needed else None)
    ids = [SPECIAL.convert_tokens_to_ids(row) for row in rows]
    assert unpadded(found.tokens) == ids
    assert unpadded(found.trie.item_tokens()) == [[*row, END] if needed else row for row in ids]
    assert found.trie.identifiers == len(distinct)
