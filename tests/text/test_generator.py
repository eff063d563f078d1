"""A text bundle end to end: export, build, generate; the texts are those of transformers' greedy decoding."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from device_engines import built
from specbeam.catalog.errors import BundleError, ExportError, OptionError, PromptError
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.texts import TextBundle
from specbeam.export.text import SAMPLES, export_text
from specbeam.pools.texts.live import LivePool
from specbeam.runtime import Batching, EngineChoice
from specbeam.text import TextDrafting, TextGenerator
from specbeam.text.draft import PoolDrafter
from specbeam.text.planning import AllOfIt
from text_cases import LIMIT, PROMPTS


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("drafting", [None, TextDrafting(), TextDrafting(draft_tokens=5, query=1)], ids=str)
def test_strict_texts_are_those_of_transformers(
    bundle: Path, greedy: dict[str, list[int]], batch: int, drafting: TextDrafting | None
) -> None:
    generator = TextGenerator.open(bundle, drafting=drafting, engine=EngineChoice(threads=1), batching=batch)
    for _ in range(2):  # the second time all of it is in the live pool
        texts = generator.generate(PROMPTS, max_new_tokens=LIMIT)
        assert [list(text.tokens) for text in texts] == [greedy[prompt] for prompt in PROMPTS]
    assert (generator.stats.accepted > 0) == (drafting is not None)
    assert generator.stats.texts == 2 * len(PROMPTS)
    if drafting is not None:
        assert generator.stats.target_calls < generator.stats.tokens
        seconds = generator.stats.other_seconds
        assert 0 < seconds < generator.stats.total_seconds


def test_a_prompt_that_begins_with_bos_gets_no_other(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    told: list[str] = []
    export_text(checkpoint, tmp_path / "bundle", prompt="<s>About {prompt}:", progress=told.append)
    build_engine(tmp_path / "bundle", threads=1)
    own, bare = (
        TextGenerator.open(path, drafting=None, engine=EngineChoice(threads=1))
        for path in (tmp_path / "bundle", bundle)
    )
    assert own.encode("a desk").prompt.tolist() == bare.encode("a desk").prompt.tolist()
    assert own.encode("a <s>").prompt.tolist() == tokenizer("<s>About a <s>:", add_special_tokens=False)["input_ids"]
    (sample,) = [line for line in told if line.startswith("prompt of")]
    assert str(own.encode(SAMPLES[0]).prompt.tolist()) in sample
    assert "'<s>About A matte" in sample


def test_the_torch_engine_writes_the_same(bundle: Path, greedy: dict[str, list[int]]) -> None:
    generator = TextGenerator.open(bundle, engine=EngineChoice("torch-cpu-fp32", threads=1), batching=3)
    texts = generator.generate(PROMPTS, max_new_tokens=LIMIT)
    assert [list(text.tokens) for text in texts] == [greedy[prompt] for prompt in PROMPTS]


@pytest.mark.parametrize("batch", [1, 4])
def test_an_engine_that_pads_its_calls_writes_the_same(
    bundle: Path, greedy: dict[str, list[int]], batch: int, tmp_path: Path
) -> None:
    """As CUDA's does: index inputs, caches on its own memory, calls of few sizes."""
    opened = TextBundle.open(bundle)
    engine = built(opened, "target", tmp_path, slots=opened.manifest.tree_path)
    generator = TextGenerator(
        engine, opened.tokenizer_file(), opened.manifest.prompt, context=opened.manifest.target.context,
        end_tokens=opened.manifest.end_tokens, drafter=PoolDrafter(None, LivePool(), TextDrafting()),
        planning=AllOfIt(), batch_size=batch,
    )  # fmt: skip
    for _ in range(2):
        texts = generator.generate(PROMPTS, max_new_tokens=LIMIT)
        assert [list(text.tokens) for text in texts] == [greedy[prompt] for prompt in PROMPTS]
    assert generator.stats.accepted > 0


def test_the_context_is_never_exceeded(bundle: Path) -> None:
    generator = TextGenerator.open(bundle, engine=EngineChoice(threads=1))
    context = TextBundle.open(bundle).manifest.target.context
    long = " lamp" * 100
    room = context - len(generator.encode(long).prompt)
    (text,) = generator.generate([long], max_new_tokens=10_000)
    assert text.finish == "end" or len(text.tokens) == room
    with pytest.raises(PromptError, match=f"the model.s context {context} positions"):
        generator.encode(" lamp" * 200)


def test_stop_strings_are_not_written(bundle: Path) -> None:
    whole = TextGenerator.open(bundle, engine=EngineChoice(threads=1)).generate(PROMPTS, max_new_tokens=LIMIT)
    stop = whole[0].text[3:5]
    for batch in (1, 4):
        stopped = TextGenerator.open(bundle, stop=[stop], engine=EngineChoice(threads=1), batching=batch).generate(
            PROMPTS, max_new_tokens=LIMIT
        )
        assert [text.text for text in stopped] == [text.text.split(stop)[0] for text in whole]
        assert stopped[0].finish == "stop"
        assert len(stopped[0].tokens) < len(whole[0].tokens)


def test_options_that_mean_nothing(bundle: Path) -> None:
    with pytest.raises(OptionError, match="a batch's size is 0"):
        TextGenerator.open(bundle, batching=0)
    with pytest.raises(OptionError, match="is for lists of items; of texts, a smaller batch takes less"):
        TextGenerator.open(bundle, batching=Batching(2, 10**9))
    with pytest.raises(OptionError, match="empty stop string"):
        TextGenerator.open(bundle, stop=[""])
    with pytest.raises(OptionError, match="1 ids for 2 prompts"):
        TextGenerator.open(bundle).generate(["a", "b"], ids=["u"])
    with pytest.raises(BundleError, match="specbeam generate"):
        Bundle.open(bundle)


def test_a_chat_template_stands_around_the_prompt(checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.chat_template = (
        "<s>{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    folder = tmp_path / "chat"
    AutoModelForCausalLM.from_pretrained(checkpoint).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    export_text(folder, tmp_path / "bundle", prompt="Say {prompt}", chat=True, checkpoints=False)
    build_engine(tmp_path / "bundle")
    generator = TextGenerator.open(tmp_path / "bundle", engine=EngineChoice(threads=1))
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say hi"}], add_generation_prompt=True, return_dict=False
    )
    assert generator.encode("hi").prompt.tolist() == expected


def test_export_says_what_is_wrong(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"holds \{prompt\} 0 times"):
        export_text(checkpoint, tmp_path / "bundle", prompt="no place")
    with pytest.raises(ExportError, match="precision"):
        export_text(checkpoint, tmp_path / "bundle", precision="int3")
    assert not (tmp_path / "bundle").exists()
