"""Identifiers of later catalogs in the tokens of a model that is there: as an export spells them, or refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specbeam.catalog.errors import CatalogError
from specbeam.catalog.identifiers import compile_identifiers
from specbeam.catalog.items import Catalog
from specbeam.catalog.spelling import Spelling, UnknownTokens
from specbeam.catalog.trie import ItemTrie
from tiny_models import identifier_tokens, make_text_tokenizer, make_tokenizer, text_catalog, tiny_catalog

TOKENIZER = make_tokenizer(identifier_tokens())


def catalog_of(*identifiers: tuple[str, ...]) -> Catalog:
    return Catalog(tuple(f"i{n}" for n in range(len(identifiers))), identifiers, (None,) * len(identifiers))


def spelling_of(path: Path) -> tuple[Catalog, Spelling]:
    catalog = Catalog.load(path, None)
    found = compile_identifiers(TOKENIZER, catalog)
    return catalog, Spelling.of(catalog, found.trie, found.end_token)


@pytest.mark.parametrize("ragged", [False, True])
@given(data=st.data())
def test_a_later_catalog_is_spelled_as_its_export_spells_it(
    tmp_path_factory: pytest.TempPathFactory, ragged: bool, data: st.DataObject
) -> None:
    path = tiny_catalog(tmp_path_factory.mktemp("catalog") / "index.json", ragged=ragged)
    catalog, spelling = spelling_of(path)
    levels = [sorted({identifier[d] for identifier in catalog.identifiers if len(identifier) > d}) for d in range(3)]
    lengths = st.integers(1, 3) if ragged else st.just(3)
    drawn = lengths.flatmap(lambda length: st.tuples(*map(st.sampled_from, levels[:length])))
    later = catalog_of(*data.draw(st.lists(drawn, min_size=1, max_size=12)))
    got, expected = spelling.compile(later), compile_identifiers(TOKENIZER, later, "always" if ragged else "never")
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_array_equal(got.trie.item_tokens(), expected.trie.item_tokens())
    assert got.end_token == expected.end_token
    assert got.trie.ends_with(got.end_token)
    np.testing.assert_array_equal(got.trie.vocabulary, spelling.vocabulary)  # whichever of it is used
    for name in ("first_child", "child_count", "parent", "depth", "level_start", "item_offset", "item"):
        np.testing.assert_array_equal(getattr(got.trie, name), getattr(expected.trie, name))


def test_unknown_tokens_are_refused_with_all_items(tmp_path: Path) -> None:
    catalog, spelling = spelling_of(tiny_catalog(tmp_path / "index.json"))
    own = catalog.identifiers[0]
    later = catalog_of(own, (own[0], "<b_99>", own[2]), *[("<x>", "<y>", own[2])] * 6)
    with pytest.raises(UnknownTokens, match=r"7 items have tokens that the model does not know: 'i1 \(<b_99>\)'") as e:
        spelling.compile(later)
    assert e.value.items[:2] == (("i1", ("<b_99>",)), ("i2", ("<x>", "<y>")))
    assert len(e.value.items) == 7


def test_identifiers_that_are_too_long_or_the_beginning_of_others_are_refused(tmp_path: Path) -> None:
    catalog, spelling = spelling_of(tiny_catalog(tmp_path / "index.json"))
    own = catalog.identifiers[0]
    with pytest.raises(CatalogError, match=r"1 items have identifiers of more than 3 tokens.*'i1'"):
        spelling.compile(catalog_of(own, (*own, *own * 10**6)))
    with pytest.raises(CatalogError, match=r"1 identifiers are the beginning of others.*one length"):
        spelling.compile(catalog_of(own, own[:2]))
    _, ragged = spelling_of(tiny_catalog(tmp_path / "ragged.json", ragged=True))
    assert ragged.compile(catalog_of(own, own[:2])).trie.identifiers == 2  # the end token tells them apart
    with pytest.raises(CatalogError, match="more than 3 tokens"):
        ragged.compile(catalog_of((*own, own[0])))


def test_text_is_known_by_whole_identifiers(tmp_path: Path) -> None:
    tokenizer, catalog = make_text_tokenizer(), Catalog.load(text_catalog(tmp_path / "index.json"), None)
    found = compile_identifiers(tokenizer, catalog)
    spelling = Spelling.of(catalog, found.trie, found.end_token)
    known = catalog.identifiers[3:9]
    np.testing.assert_array_equal(
        spelling.compile(catalog_of(*known)).trie.item_tokens(),
        compile_identifiers(tokenizer, catalog_of(*known), "always").trie.item_tokens(),
    )
    with pytest.raises(UnknownTokens, match="text, of which a bundle keeps no tokenizer") as caught:
        spelling.compile(catalog_of((" teapot", " oak"), (" oak", " teapot")))
    assert caught.value.items == (("i1", (" oak", " teapot")),)


def test_a_trie_on_a_vocabulary_that_lacks_its_tokens_is_refused() -> None:
    trie = ItemTrie.build(np.array([[3, 7], [3, 9]]))
    np.testing.assert_array_equal(trie.on(np.array([1, 3, 7, 9, 11])).item_tokens(), trie.item_tokens())
    for vocabulary in ([3, 7], [3, 8, 9], [9]):
        with pytest.raises(CatalogError, match="no columns for"):
            trie.on(np.array(vocabulary))
