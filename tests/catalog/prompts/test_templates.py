"""Templates: the ids are the tokenizer's own, whatever stands around the items."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_cases import CATALOG, TOKENIZERS, TOKENS, as_they_are, byte_level, make_catalog, refuse, words, wrap
from specbeam.catalog import Catalog, PromptEncoder, PromptOptions, compile_prompt
from specbeam.catalog.identifiers import identifier_ids

KINDS = [(name, chat) for name in TOKENIZERS for chat in (False, True) if (name, chat) != ("words", True)]


TEMPLATE = "The user bought these items: {history}. What is next?"


@pytest.mark.parametrize(
    ("template", "separator"),
    [("{history}", ""), (TEMPLATE, ", "), (TEMPLATE, " "), (" {history}", ";"), ("{history} ", " and ")],
)
@pytest.mark.parametrize(("name", "chat"), KINDS)
def test_a_template_gives_the_tokenizers_ids(name, template, separator, chat):
    tokenizer = TOKENIZERS[name]()
    spec = compile_prompt(
        tokenizer, CATALOG, PromptOptions(prompt=template, separator=separator, chat=chat, history_length=7)
    )
    assert spec.template.count("{history}") == 1
    encoder = PromptEncoder(spec, CATALOG.token_ids(tokenizer.get_vocab()), 10_000)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(0, 39), min_size=1, max_size=9))
    def check(history):
        text = template.replace("{history}", separator.join("".join(CATALOG.identifiers[i]) for i in history[-7:]))
        if chat:
            message = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        expected = tokenizer(text, add_special_tokens=not chat)["input_ids"]
        assert encoder.encode(history).ids.tolist() == expected

    check()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_template_is_bos_and_the_items(name):
    tokenizer = TOKENIZERS[name]()
    spec = compile_prompt(tokenizer, CATALOG, PromptOptions(history_length=20))
    bos = () if tokenizer.bos_token is None else (tokenizer.bos_token_id,)
    assert (spec.prefix_ids, spec.separator_ids, spec.suffix_ids, spec.history_length) == (bos, (), (), 20)
    assert spec.template == (tokenizer.bos_token or "") + "{history}"


def test_braces_other_than_history_are_text():
    tokenizer = TOKENIZERS["bytes"]()
    spec = compile_prompt(tokenizer, CATALOG, PromptOptions(prompt="{x} {{history}}", separator="{}", history_length=3))
    assert tokenizer.decode(spec.prefix_ids) == "{x} {"
    assert (tokenizer.decode(spec.separator_ids), tokenizer.decode(spec.suffix_ids)) == ("{}", "}")


def test_chat_without_a_template_is_the_bare_history():
    tokenizer = TOKENIZERS["bytes"]()
    spec = compile_prompt(tokenizer, CATALOG, PromptOptions(prompt=None, separator=", ", chat=True, history_length=3))
    assert spec.template == "<s><|start|>user\n{history}<|end|>\n<|start|>assistant\n"
    assert spec.prefix_ids[0] == tokenizer.bos_token_id
    assert spec.prefix_ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", ["words", "metaspace first", "metaspace never"])
def test_a_template_that_begins_with_bos_gets_no_other(name):
    tokenizer = TOKENIZERS[name]()
    bos = tokenizer.bos_token_id
    assert tokenizer("<s>one")["input_ids"][:2] == [bos, bos]
    own, bare = (
        compile_prompt(tokenizer, CATALOG, PromptOptions(prompt=text)) for text in ("<s>{history}", "{history}")
    )
    assert own.prefix_ids == (bos,)
    assert bare.prefix_ids[0] == bos
    later = compile_prompt(tokenizer, CATALOG, PromptOptions(prompt="one <s>{history}"))  # not where a text begins
    assert (later.prefix_ids[0], later.prefix_ids.count(bos)) == (bos, 2)


@pytest.mark.parametrize(
    ("template", "times"),
    [("{history}", 1), ("<s>{history}", 1), ("\n<s>{history}", 2), (" <s>{history}", 2), ("<s><s>{history}<s>", 3)],
)
def test_a_bos_that_is_there_more_than_once_is_warned_of(template, times):
    tokenizer, told = TOKENIZERS["metaspace never"](), []
    spec = compile_prompt(tokenizer, CATALOG, PromptOptions(prompt=template), told.append)
    ids = [*spec.prefix_ids, *spec.separator_ids, *spec.suffix_ids]
    assert ids.count(tokenizer.bos_token_id) == times
    said = {1: None, 2: "twice", 3: "3 times"}[times]
    assert [text.partition(". ")[0] for text in told] == ([f"the prompt holds <s> {said}: ids {ids}"] if said else [])


def test_a_template_may_hold_identifiers_itself():
    tokenizer = TOKENIZERS["bytes"]()
    first = "".join(CATALOG.identifiers[0])
    template = f"after {first} comes {{history}} not {first}"
    spec = compile_prompt(tokenizer, CATALOG, PromptOptions(prompt=template, separator=" ", history_length=3))
    assert tokenizer.decode(spec.prefix_ids) == f"after {first} comes "


def test_a_catalog_of_one_item_will_do():
    catalog = make_catalog(items=1)
    spec = compile_prompt(
        TOKENIZERS["bytes"](), catalog, PromptOptions(prompt="{history}", separator=",", history_length=2)
    )
    assert len(spec.separator_ids) == 1


@pytest.mark.parametrize("name", TOKENIZERS)
def test_identifiers_of_unequal_length(name):
    cut = tuple(tokens[: 1 + number % 3] for number, tokens in enumerate(CATALOG.identifiers))
    catalog = Catalog(CATALOG.item_ids, cut, CATALOG.titles)
    tokenizer = TOKENIZERS[name]()
    spec = compile_prompt(tokenizer, catalog, PromptOptions(prompt=TEMPLATE, separator=" ", history_length=7))
    whole = compile_prompt(tokenizer, CATALOG, PromptOptions(prompt=TEMPLATE, separator=" ", history_length=7))
    assert spec == whole


def text_catalog(*texts):
    return Catalog(tuple(map(str, range(len(texts)))), tuple((text,) for text in texts), (None,) * len(texts))


def text_tokenizer(corpus=()):
    """Byte-level BPE that takes words apart, with merges across whatever `corpus` holds."""
    corpus = [*corpus, " desk lamp, walnut desk, oak", "desk lamps"]
    return wrap(byte_level("<s>", corpus * 3, 330), [])


BOUGHT = "The user bought these items:{history}. What is next?"


WORDS = [" desk lamp", " desk", " lamp", " walnut desk", " oak", " oak 3", " extra large kettle"]


@pytest.mark.parametrize(
    ("template", "separator"),
    [(None, ""), ("{history}", ""), (BOUGHT, ","), ("{history}", " and")],
)
def test_items_that_are_text(template, separator):
    tokenizer, catalog = text_tokenizer(), text_catalog(*WORDS)
    spec = compile_prompt(tokenizer, catalog, PromptOptions(prompt=template, separator=separator, history_length=9))
    table = identifier_ids(tokenizer, catalog)
    assert len(set((table != -1).sum(axis=1))) > 2
    encoder = PromptEncoder(spec, table, 1000)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=9))
    def check(history):
        text = (template or "<s>{history}").replace("{history}", separator.join(WORDS[item] for item in history))
        assert encoder.encode(history).ids.tolist() == tokenizer(text)["input_ids"]

    check()


@pytest.mark.parametrize(
    ("template", "separator"), [("items: {history}.", ","), ("{history}", ", "), ("{history}", ""), ("{history}s", ",")]
)
def test_text_that_merges_with_what_stands_beside_it_is_refused(template, separator):
    words = [word.strip() for word in WORDS]
    message = refuse("cannot be put together", text_tokenizer(), text_catalog(*words), template, separator)
    assert 'begin each with its own space (" desk lamp")' in message


def test_a_single_text_that_merges_is_found_among_many():
    tokenizer = text_tokenizer(["wow!, wow!, wow!,"] * 20)
    assert len(tokenizer("!,")["input_ids"]) == 1
    texts = [f" desk {number}" for number in range(3000)]
    catalog = text_catalog(*texts[:2345], " desk!", *texts[2345:])
    message = refuse("cannot be put together", tokenizer, catalog, template="{history}", separator=",")
    assert "history (items): 2345, 2345\n" in message
    compile_prompt(tokenizer, text_catalog(*texts), PromptOptions(prompt="{history}", separator=",", history_length=5))


def test_text_the_tokenizer_does_not_know_is_refused_as_an_identifier():
    refuse("does not know the text of 1 identifiers", wrap(words(), [], unk_token="<unk>"), text_catalog("one", "ten"))


def test_strings_of_an_identifier_are_joined():
    catalog = Catalog(("0", "1"), (("mud", "guard"), ("jump", "rope", "x")), (None, None))
    tokenizer = text_tokenizer()
    options = PromptOptions(prompt="{history}", separator=",", join=" - ")
    spec = compile_prompt(tokenizer, catalog, options)
    encoder = PromptEncoder(spec, identifier_ids(tokenizer, catalog, " - "), 1000)
    assert encoder.encode([1, 0]).ids.tolist() == tokenizer("jump - rope - x,mud - guard")["input_ids"]


def test_words_of_the_vocabulary_that_merge_are_found_wherever_they_are():
    tk = pytest.importorskip("tokenizers")
    letters = "abcdefghijklmnopqrst"
    vocabulary = {token: number for number, token in enumerate([*letters, ",", "ab"])}
    tokenizer = wrap(tk.Tokenizer(tk.models.BPE(vocabulary, [("a", "b")])), [])
    apart = [triple for triple in product(letters, repeat=3) if "ab" not in "".join(triple)]
    assert len(apart) > 5000  # so many that random histories miss the one
    identifiers = (*apart[:4321], ("s", "a", "b"), *apart[4321:])
    catalog = Catalog(tuple(map(str, range(len(identifiers)))), identifiers, (None,) * len(identifiers))
    message = refuse("cannot be put together", tokenizer, catalog, template="{history}", separator=",")
    assert "history (items): 4321, 4321\n" in message


@pytest.mark.parametrize(("template", "separator"), [("{history}", ""), ("the user bought {history}", " ")])
def test_t5s_own_tokenizer_ends_prompts(template, separator):
    transformers = pytest.importorskip("transformers")
    vocab = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((f"▁{w}", -3.0) for w in template.split()[:-1]),
    ]
    tokenizer = transformers.T5Tokenizer(vocab=vocab, extra_ids=0)
    tokenizer.add_tokens(as_they_are(TOKENS))
    spec = compile_prompt(tokenizer, CATALOG, PromptOptions(prompt=template, separator=separator, history_length=4))
    assert spec.suffix_ids == (tokenizer.eos_token_id,)
    encoder = PromptEncoder(spec, CATALOG.token_ids(tokenizer.get_vocab()), 10_000)
    text = template.replace("{history}", separator.join("".join(CATALOG.identifiers[i]) for i in (3, 1, 2)))
    assert encoder.encode([3, 1, 2]).ids.tolist() == tokenizer(text)["input_ids"]
    bare = compile_prompt(tokenizer, CATALOG, PromptOptions(history_length=4))
    assert (bare.prefix_ids, bare.suffix_ids) == ((), ())
