"""Prompts: the assembled ids are the tokenizer's own, or the prompt is refused."""

import re
from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from places import SHARED
from specbeam.catalog import Catalog, PromptEncoder, PromptOptions, PromptSpec, compile_prompt
from specbeam.catalog.errors import PromptError
from specbeam.catalog.identifiers import identifier_ids

LETTERS = "abc"
TOKENS = [f"<{letter}_{code}>" for letter in LETTERS for code in range(6)]
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CORPUS = ["The user bought these items: one, two; three and four. What is next? user assistant\n"] * 4


def make_catalog(items=40, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(6, size=(items, 3))
    identifiers = tuple(tuple(f"<{x}_{c}>" for x, c in zip(LETTERS, row, strict=True)) for row in codes)
    return Catalog(tuple(map(str, range(items))), identifiers, (None,) * items)


CATALOG = make_catalog()


# --- the encoder, which needs no tokenizer

SPEC = PromptSpec(template="", separator="", prefix_ids=(1, 2), separator_ids=(3, 4), suffix_ids=(5,), history_length=3)
ITEMS = np.array([[10, 11], [20, 21], [30, 31], [40, 41]])


def test_encode_takes_the_most_recent_items_oldest_first():
    encoder = PromptEncoder(SPEC, ITEMS, 100)
    prompt = encoder.encode([0, 3, 1, 2])
    assert prompt.ids.tolist() == [1, 2, 40, 41, 3, 4, 20, 21, 3, 4, 30, 31, 5]
    assert prompt.ids.dtype == np.int64
    assert (prompt.kept, prompt.shortened) == (3, False)
    prompt = encoder.encode(np.array([2]))
    assert (prompt.ids.tolist(), prompt.kept, prompt.shortened) == ([1, 2, 30, 31, 5], 1, False)


def test_encode_shortens_to_the_context_and_says_so():
    assert PromptEncoder(SPEC, ITEMS, 13).encode([1, 2, 3]).shortened is False
    encoder = PromptEncoder(SPEC, ITEMS, 12)  # three items take 13 tokens
    assert encoder.max_items == 2
    prompt = encoder.encode([1, 2, 3])
    assert (prompt.ids.tolist(), prompt.kept, prompt.shortened) == ([1, 2, 30, 31, 3, 4, 40, 41, 5], 2, True)
    assert encoder.encode([1, 2]).shortened is False
    assert PromptEncoder(SPEC, ITEMS, 5).encode([1, 2]).ids.tolist() == [1, 2, 30, 31, 5]


def test_a_context_without_room_for_one_item_is_refused():
    with pytest.raises(PromptError, match=r"2 tokens and 3 tokens around the history, but the context leaves 4"):
        PromptEncoder(SPEC, ITEMS, 4)


def test_an_empty_history_is_refused():
    with pytest.raises(PromptError, match="empty"):
        PromptEncoder(SPEC, ITEMS, 100).encode([])


ids = st.lists(st.integers(0, 9), max_size=4).map(tuple)
RAGGED = np.array([[10, -1, -1], [20, 21, 22], [30, 31, -1], [40, -1, -1]])


@given(
    st.sampled_from([ITEMS, RAGGED]),
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    *(ids, ids, ids),
    st.integers(1, 8),
    st.integers(0, 30),
)
def test_encode_agrees_with_a_plain_join(table, history, prefix, separator, suffix, length, room):
    items = [[token for token in row if token >= 0] for row in table.tolist()]
    spec = PromptSpec(
        template="", separator="", prefix_ids=prefix, separator_ids=separator, suffix_ids=suffix, history_length=length
    )

    def plain(count):
        joined = []
        for item in history[len(history) - count :]:
            joined += [*(separator if joined else ()), *items[item]]
        return [*prefix, *joined, *suffix]

    wanted = min(length, len(history))
    limit = len(prefix) + len(suffix) + max(map(len, items)) + room
    kept = max(count for count in range(1, wanted + 1) if len(plain(count)) <= limit)
    prompt = PromptEncoder(spec, table, limit).encode(history)
    assert (prompt.ids.tolist(), prompt.kept, prompt.shortened) == (plain(kept), kept, kept < wanted)


def test_every_token_of_the_context_is_used_by_items_of_unequal_length():
    encoder = PromptEncoder(SPEC, RAGGED, 12)
    assert encoder.encode([1, 2, 3]).kept == 2  # 1 and 2 and 3: 2 + 3 + 2 + 2 + 2 + 1 + 1 = 13 tokens
    assert encoder.encode([2, 3, 0]).kept == 3  # 2 + 2 + 2 + 1 + 2 + 1 + 1 = 11
    prompt = PromptEncoder(SPEC, RAGGED, 13).encode([1, 2, 3])
    assert prompt.ids.tolist() == [1, 2, 20, 21, 22, 3, 4, 30, 31, 3, 4, 40, 5]
    assert encoder.max_items == 3
    assert PromptEncoder(SPEC, RAGGED[:, [0, 1]], 8).max_items == 2  # the shortest: 2 + 1 + 2 + 1 + 1 = 7
    with pytest.raises(PromptError, match=r"one item of 3 tokens and 3 tokens around the history, .* leaves 5"):
        PromptEncoder(SPEC, RAGGED, 5)


def test_columns_without_any_token_do_not_matter():
    wide = np.pad(ITEMS, ((0, 0), (0, 2)), constant_values=-1)
    for limit in (5, 9, 13):
        prompts = [PromptEncoder(SPEC, table, limit).encode([0, 1, 2]).ids.tolist() for table in (ITEMS, wide)]
        assert prompts[0] == prompts[1]


def test_the_spec_survives_json():
    assert msgspec.json.decode(msgspec.json.encode(SPEC), type=PromptSpec) == SPEC


# --- compiled from tokenizers built here


def wrap(backend, identifiers=TOKENS, bos="<s>", **options):
    """A transformers tokenizer around a `tokenizers` one, with the identifiers as added tokens."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, **options)
    tokenizer.add_tokens(identifiers)
    return tokenizer


def words(pre_tokenizer="Whitespace", extra=()):
    """Word-level, with a bos put before every text by the post-processor."""
    tk = pytest.importorskip("tokenizers")
    known = ["<unk>", "<s>", *sorted(set(re.findall(r"\w+|[^\w\s]+", CORPUS[0]))), *extra]
    backend = tk.Tokenizer(tk.models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    backend.pre_tokenizer = getattr(tk.pre_tokenizers, pre_tokenizer)()
    backend.post_processor = tk.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def byte_level(bos, corpus=(), size=400):
    """Byte-level BPE as GPT-2's and Qwen's; knows any text, adds nothing."""
    tk = pytest.importorskip("tokenizers")
    backend = tk.Tokenizer(tk.models.BPE())
    backend.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tk.decoders.ByteLevel()
    special = ["<|start|>", "<|end|>", *([bos] if bos else [])]
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    trainer = tk.trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator([*CORPUS, *corpus], trainer)
    return backend


def metaspace(scheme):
    """As SentencePiece: spaces are letters of words, and one may be put before a text."""
    tk = pytest.importorskip("tokenizers")
    backend = tk.Tokenizer(tk.models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = tk.pre_tokenizers.Metaspace(prepend_scheme=scheme)
    special = ["<unk>", "<s>", "<|start|>", "<|end|>"]
    trainer = tk.trainers.BpeTrainer(vocab_size=200, special_tokens=special)
    backend.train_from_iterator([*CORPUS, "a, b , c\n user"], trainer)
    backend.post_processor = tk.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def legacy_llama():
    """As the converted Llama tokenizers: a normalizer writes the spaces, also before text after an added token."""
    tk = pytest.importorskip("tokenizers")
    backend = metaspace("always")
    backend.pre_tokenizer = None
    backend.normalizer = tk.normalizers.Sequence([tk.normalizers.Prepend("▁"), tk.normalizers.Replace(" ", "▁")])
    return backend


def as_they_are(tokens):
    """Tokens found in the text before a normalizer touches it."""
    tk = pytest.importorskip("tokenizers")
    return [tk.AddedToken(token, normalized=False) for token in tokens]


TOKENIZERS = {
    "words": lambda: wrap(words(), unk_token="<unk>"),
    "bytes": lambda: wrap(byte_level("<s>"), chat_template=CHAT),
    "bytes, no bos": lambda: wrap(byte_level(None), bos=None, chat_template=CHAT),
    "metaspace always": lambda: wrap(metaspace("always"), unk_token="<unk>", chat_template=CHAT),
    "metaspace first": lambda: wrap(metaspace("first"), unk_token="<unk>", chat_template=CHAT),
    "metaspace never": lambda: wrap(metaspace("never"), unk_token="<unk>", chat_template=CHAT),
    "legacy llama": lambda: wrap(legacy_llama(), as_they_are(TOKENS), unk_token="<unk>", chat_template=CHAT),
}
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


# --- items of unequal length


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


# --- refused


def refuse(message, tokenizer, catalog=CATALOG, template=None, separator="", history_length=5, **options):
    options = PromptOptions(prompt=template, separator=separator, history_length=history_length, **options)
    with pytest.raises(PromptError, match=message) as caught:
        compile_prompt(tokenizer, catalog, options)
    return str(caught.value)


def test_a_template_needs_its_history_once():
    tokenizer = TOKENIZERS["bytes"]()
    refuse(r"'next:' holds \{history\} 0 times; expected once", tokenizer, template="next:")
    refuse(r"holds \{history\} 2 times", tokenizer, template="{history}{history}", chat=True)
    refuse("the separator ', ' needs a template", tokenizer, separator=", ")
    refuse("history length is 0", tokenizer, history_length=0)


def test_identifiers_the_tokenizer_lacks_are_named():
    tokenizer = wrap(byte_level("<s>"), TOKENS[2:])
    refuse("2 of the catalog's 18 tokens are not in .*: '<a_0>', '<a_1>'", tokenizer)


def test_identifiers_the_tokenizer_takes_apart_are_named():
    tokenizer = wrap(words(extra=TOKENS), TOKENS[1:], unk_token="<unk>")
    refuse("takes 1 of the catalog's 18 tokens apart, .*: '<a_0>'", tokenizer)


def test_identifiers_that_are_only_words_are_refused():
    tokenizer = wrap(words("WhitespaceSplit", extra=TOKENS), [], unk_token="<unk>")
    message = refuse("cannot be put together", tokenizer)
    assert "history (items): 0\n" in message
    assert f"text: {'<s>' + ''.join(CATALOG.identifiers[0])!r}" in message


def test_a_token_that_swallows_the_separator_is_found_wherever_it_is():
    tk = pytest.importorskip("tokenizers")
    others = make_catalog(items=5000)  # so many that random histories miss the one
    identifiers = (*others.identifiers[:1234], ("<a_0>", "<b_0>", "<odd>"), *others.identifiers[1235:])
    catalog = Catalog(others.item_ids, identifiers, others.titles)
    tokenizer = wrap(byte_level("<s>"), [*TOKENS, tk.AddedToken("<odd>", rstrip=True)])
    message = refuse("cannot be put together", tokenizer, catalog, template="{history}", separator=" ")
    assert re.search(r"history \(items\): .*\b1234\b", message)
    assembled, own = re.findall(r"ids: (\[.*\])", message)
    assert len(msgspec.json.decode(assembled)) > len(msgspec.json.decode(own))
    assert "SentencePiece" in message
    compile_prompt(tokenizer, catalog, PromptOptions(prompt="{history}", separator=",", history_length=5))


def test_identifiers_that_a_normalizer_hides_are_refused_with_the_remedy():
    # what tokenizer.add_tokens(["<a_0>", ...]) does to a converted Llama tokenizer
    message = refuse("cannot be put together", wrap(legacy_llama(), TOKENS, unk_token="<unk>"))
    assert "AddedToken(..., normalized=False" in message


def test_text_that_the_tokenizer_does_not_know_is_refused():
    refuse("does not know .*it writes <unk> in its place", wrap(words(), unk_token="<unk>"), template="buy {history}")
    undeclared = wrap(words(), unk_token=None, eos_token="<unk>")
    refuse("it writes <unk>", undeclared, template="{history}", separator=" zzz ")


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        (None, "chat template cannot be applied"),
        ("{{ raise_exception('needs a system message') }}", "needs a system message"),
        ("{{ messages[0].content.nothing.at_all }}", "chat template cannot be applied"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", r"changes \{history\}"),
        ("no content", r"changes \{history\}: it renders as 'no content'"),
    ],
)
def test_chat_templates_that_cannot_be_used_are_refused(chat_template, message):
    refuse(message, wrap(byte_level("<s>"), chat_template=chat_template), template="{history}", chat=True)


def test_a_chat_template_that_looks_into_the_message_is_refused():
    template = "{% for m in messages %}{{ m.content | length }} {{ m.content }}{% endfor %}"
    refuse("cannot be put together", wrap(byte_level("<s>"), chat_template=template), template="{history}", chat=True)


# --- the real tokenizer


def test_the_real_tokenizer():
    folder, index = SHARED / "models" / "beauty" / "target", SHARED / "data" / "beauty" / "index.json"
    if not (folder.is_dir() and index.is_file()):
        pytest.skip(f"no real model and data at {SHARED} (set SPECBEAM_DATA)")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    catalog = Catalog.load(index, None)
    for template in (None, "{history}"):
        spec = compile_prompt(tokenizer, catalog, PromptOptions(prompt=template, history_length=20))
        assert (spec.prefix_ids, spec.separator_ids, spec.suffix_ids) == ((1,), (), ())
    refuse("it writes </s> in its place", tokenizer, catalog, template="the user bought {history}")
