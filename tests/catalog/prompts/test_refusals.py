"""Prompts that are refused, and in which words."""

import re

import msgspec
import pytest

from places import SHARED
from prompt_cases import (
    CATALOG,
    TOKENIZERS,
    TOKENS,
    byte_level,
    legacy_llama,
    make_catalog,
    refuse,
    words,
    wrap,
)
from specbeam.catalog import Catalog, PromptOptions, compile_prompt


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
