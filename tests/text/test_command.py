"""generate as a user runs it, and what other verbs say of a text bundle."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from specbeam.catalog.errors import PoolError, PromptError
from specbeam.cli import main
from specbeam.runtime import EngineChoice, RequestError, RequestFailure
from specbeam.text import TextDrafting, TextGenerator, TextVerification
from text_cases import LIMIT, PROMPTS
from tiny_bundle import ENGINE, break_rows


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"u{i}", "prompt": p}) + "\n" for i, p in enumerate(PROMPTS)))
    return path


def test_generate_writes_a_line_a_prompt_and_sets_bad_lines_aside(bundle: Path, prompts: Path, tmp_path: Path) -> None:
    with prompts.open("a") as file:
        file.write('{"id": "bad"}\n{"id": 7, "prompt": "teapot", "max_new_tokens": 2, "more": 1}\nnonsense\n')
        file.write(json.dumps({"id": "long", "prompt": " lamp" * 300}) + "\n")
    out = tmp_path / "texts.jsonl"
    result = run("generate", bundle, prompts, "-o", out, "--max-new-tokens", str(LIMIT), "--stats", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "tokens per target call" in result.output
    assert "3 lines were rejected" in result.output
    written = lines_of(out)
    assert [line["id"] for line in written] == [*(f"u{i}" for i in range(len(PROMPTS))), "7"]
    assert written[-1]["tokens"] <= 2
    assert all(line["stats"]["target_calls"] >= 1 for line in written)
    rejects = lines_of(tmp_path / "texts.jsonl.rejects.jsonl")
    assert [reject["line"] for reject in rejects] == [7, 9, 10]
    assert "context" in rejects[2]["reason"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "prompts.jsonl", "texts.jsonl", "texts.jsonl.rejects.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize("drafting", [None, TextDrafting()], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_prompt_without_numbers_fails_by_name_and_the_others_are_written(
    bundle: Path, greedy: dict[str, list[int]], batch: int, drafting: TextDrafting | None, tmp_path: Path
) -> None:
    token = TextGenerator.open(bundle, engine=EngineChoice(threads=1)).encode("x").prompt[-2]
    broken = shutil.copytree(bundle, tmp_path / "bundle")
    break_rows(broken, [int(token)])
    generator = TextGenerator.open(broken, drafting=drafting, engine=EngineChoice(threads=1), batching=batch)
    requests = [generator.encode(prompt, max_new_tokens=LIMIT) for prompt in PROMPTS]
    results = generator.run(requests)
    read = [token in request.prompt or token in greedy[p][:-1] for p, request in zip(PROMPTS, requests, strict=True)]
    failed = [isinstance(result, RequestFailure) for result in results]
    assert failed == read if drafting is None else all(f >= r for f, r in zip(failed, read, strict=True))
    assert any(failed)
    assert not all(failed)
    for prompt, result in zip(PROMPTS, results, strict=True):
        if isinstance(result, RequestFailure):
            assert f"{ENGINE} (fp32) gives NaN" in result.reason
        else:
            assert list(result.tokens) == greedy[prompt]
    with pytest.raises(RequestError, match=f"^{sum(failed)} of 6 requests could not be answered") as caught:
        generator.generate(PROMPTS, max_new_tokens=LIMIT)
    assert [isinstance(result, RequestFailure) for result in caught.value.results] == failed


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_generate_rejects_prompts_without_numbers(bundle: Path, prompts: Path, output: str, tmp_path: Path) -> None:
    token = TextGenerator.open(bundle, engine=EngineChoice(threads=1)).encode("x").prompt[-2]
    broken = shutil.copytree(bundle, tmp_path / "bundle")
    break_rows(broken, [int(token)])
    out, rejects = tmp_path / output if output != "-" else output, tmp_path / "rejects.jsonl"
    options = ["--drafter", "none", "--max-new-tokens", "1", "--rejects", rejects, "--threads", "1"]
    result = run("generate", broken, prompts, "-o", out, *options)
    assert result.exit_code == 1
    assert "1 requests could not be answered, and are among the rejects" in " ".join(result.stderr.split())
    written = result.stdout.splitlines() if output == "-" else out.read_text().splitlines()
    assert [json.loads(line)["id"] for line in written] == ["u0", "u1", "u2", "u3", "u5"]
    assert [reject["line"] for reject in lines_of(rejects)] == [5]
    assert not list(tmp_path.glob("*.partial*"))
    break_rows(broken, slice(None))
    result = run("generate", broken, prompts, "-o", tmp_path / "none.jsonl", *options, "--overwrite")
    assert result.exit_code == 1
    assert "6 requests could not be answered" in " ".join(result.stderr.split())
    assert not (tmp_path / "none.jsonl").exists()


def test_strict_input(bundle: Path, prompts: Path, tmp_path: Path) -> None:
    options = ["--max-new-tokens", "1", "--strict-input", "--threads", "1"]
    assert run("generate", bundle, prompts, "-o", tmp_path / "fine.jsonl", *options).exit_code == 0
    with prompts.open("a") as file:
        file.write("nonsense\n")
    assert run("generate", bundle, prompts, "-o", tmp_path / "some.jsonl", *options).exit_code == 3
    assert len(lines_of(tmp_path / "some.jsonl")) == len(PROMPTS)


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_stopped(
    bundle: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    options = ["--max-new-tokens", str(LIMIT), "--threads", "1", "--batch-size", "2"]
    assert run("generate", bundle, prompts, "-o", whole, *options).exit_code == 0
    real, calls = TextGenerator._batch, []

    def failing(self: TextGenerator, requests: list) -> Iterator:
        calls.append(len(requests))
        if len(calls) == 2:
            raise Interrupted
        return real(self, requests)

    with monkeypatch.context() as patched:
        patched.setattr(TextGenerator, "_batch", failing)
        result = run("generate", bundle, prompts, "-o", out, *options)
    assert isinstance(result.exception, Interrupted)
    log = tmp_path / "out.jsonl.partial.log"
    assert not out.exists()
    with log.open("ab") as file:
        file.write(b'{"id": "u5", "line": 6, "te')  # cut off while it was written
    other = run("generate", bundle, prompts, "-o", out, "--max-new-tokens", "3", "--threads", "1")
    assert other.exit_code == 1
    assert "max_new_tokens (24, now 3)" in other.output
    result = run("generate", bundle, prompts, "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert "Going on with an interrupted run: 2 served and 0 rejected are kept in" in result.output
    assert "2 texts are of an earlier run" in result.output
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl"]


def test_standard_output_has_the_order_of_the_prompts(bundle: Path, prompts: Path) -> None:
    for batch in (1, 4):
        done = run("generate", bundle, prompts, "-o", "-", "--max-new-tokens", 3, "--threads", 1, "--batch-size", batch)
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [f"u{i}" for i in range(len(PROMPTS))]


def test_the_speculation_that_is_asked_for_is_used(bundle: Path, pool: Path, prompts: Path, tmp_path: Path) -> None:
    drafted = []
    for speculation in ("auto", "fixed"):
        out = tmp_path / f"{speculation}.jsonl"
        done = run(
            "generate", bundle, prompts, "-o", out, "--pool", pool, "--speculation", speculation, "--stats",
            "--max-new-tokens", LIMIT, "--threads", 1,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        drafted.append(sum(line["stats"]["drafted"] for line in lines_of(out)))
    assert drafted[0] < drafted[1]


def test_options_of_the_verb_that_cannot_be_combined(bundle: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    for options, told in (
        (["--threshold", "0.2", "--accept-top-k", "3"], "--accept-top-k, --threshold: for --verify relaxed only"),
        (["--depth", "1000000"], "depth is 1000000, expected a whole number, 1 to 256"),
        (["--stop", "</s>"], "a special token"),
        (["--rejects", tmp_path / "o.jsonl.partial"], "the run keeps its lines there"),
        (["--engine", "torch-cpu-fp32", "--speculation", "auto"], "no measured latency"),
        (["--drafter", "none", "--depth", "3"], "without a drafter"),
        (["--pool", tmp_path / "nothing"], "is not a pool"),
    ):
        result = run("generate", bundle, prompts, "-o", out, *options)
        assert result.exit_code == 1
        assert told in result.output
    assert not out.exists()


def test_export_of_text_refuses_what_is_for_items(checkpoint: Path, tmp_path: Path) -> None:
    result = run("export", "--text", "--target", checkpoint, "--separator", ",", "-o", tmp_path / "b")
    assert result.exit_code == 1
    assert "--separator: for bundles of items only" in result.output
    result = run("export", "--target", checkpoint, "-o", tmp_path / "b")
    assert result.exit_code == 1
    assert "--catalog index.json, or --text" in result.output


def test_doctor_and_checksums_know_a_text_bundle(bundle: Path, tmp_path: Path) -> None:
    assert "1 of 1 engines run here" in run("doctor", bundle).output
    assert "all are as they were written" in run("inspect", bundle, "--checksums").output
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "tokenizer/tokenizer.json").write_text("{}")
    result = run("inspect", copy, "--checksums")
    assert result.exit_code == 1
    assert "tokenizer.json has 2 bytes, expected" in result.output
    assert "Write it again with: specbeam export --text --target TARGET" in result.output


def test_inspect_and_infer_know_a_text_bundle(bundle: Path, tmp_path: Path) -> None:
    assert "writes     text" in run("inspect", bundle).output
    assert json.loads(run("inspect", bundle, "--json").output)["manifest"]["kind"] == "text"
    history = tmp_path / "h.jsonl"
    history.write_text('{"user": "u", "items": ["1"]}\n')
    result = run("infer", bundle, history, "-o", tmp_path / "r.jsonl")
    assert result.exit_code == 1
    assert "specbeam generate" in result.output
    result = run("build-engine", bundle, "--precision", "int8", "--calibration", history)
    assert "no int8 engine yet" in result.output


def test_relaxed_writes_other_texts_in_no_more_calls(bundle: Path) -> None:
    strict, relaxed = (
        TextGenerator.open(bundle, verification=verification, engine=EngineChoice(threads=1))
        for verification in (TextVerification(), TextVerification("relaxed", accept_top_k=4, threshold=0.0))
    )
    for generator in (strict, relaxed):
        for _ in range(2):
            generator.generate(PROMPTS, max_new_tokens=LIMIT)
    assert relaxed.stats.tokens_per_call > strict.stats.tokens_per_call
    assert np.isfinite(relaxed.stats.tokens_per_call)


@pytest.fixture
def pool(bundle: Path, tmp_path: Path) -> Path:
    """Of what greedy decoding writes for the first half of the prompts, in two groups."""
    texts = TextGenerator.open(bundle, engine=EngineChoice(threads=1)).generate(PROMPTS[:4], max_new_tokens=LIMIT)
    lines = [{"id": f"u{i}", "text": text.text, "finish": text.finish} for i, text in enumerate(texts)]
    (tmp_path / "written.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "groups.json").write_text(json.dumps({"u0": "a", "u1": "a", "u2": "b", "u3": "b", "u5": "b"}))
    built = run(
        "build-pool", tmp_path / "written.jsonl", "--tokenizer", bundle, "--groups", tmp_path / "groups.json",
        "-o", tmp_path / "pool",
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    return tmp_path / "pool"


def test_a_pool_saves_calls_and_changes_nothing(
    bundle: Path, pool: Path, greedy: dict[str, list[int]], prompts: Path, tmp_path: Path
) -> None:
    ids = [f"u{i}" for i in range(len(PROMPTS))]
    drafted = TextGenerator.open(bundle, pool=pool, live=False, engine=EngineChoice(threads=1))
    texts = drafted.generate(PROMPTS, max_new_tokens=LIMIT, ids=ids)
    assert [list(text.tokens) for text in texts] == [greedy[prompt] for prompt in PROMPTS]
    alone = TextGenerator.open(bundle, live=False, engine=EngineChoice(threads=1))
    alone.generate(PROMPTS, max_new_tokens=LIMIT)
    assert drafted.stats.target_calls < alone.stats.target_calls
    assert [drafted.encode("x", id=id).group for id in (*ids, "nobody")] == ["a", "a", "b", "b", None, "b", None]
    result = run("generate", bundle, prompts, "-o", tmp_path / "o.jsonl", "--pool", pool, "--stats", "--threads", "1")
    assert result.exit_code == 0, result.output


def test_what_is_wrong_with_a_pool_is_told(bundle: Path, pool: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = json.loads((checkpoint / "tokenizer.json").read_text())
    other["added_tokens"].append({**other["added_tokens"][0], "id": 900, "content": "<more>"})
    (tmp_path / "other.json").write_text(json.dumps(other))
    texts = tmp_path / "written.jsonl"
    assert run("build-pool", texts, "--tokenizer", tmp_path / "other.json", "-o", tmp_path / "foreign").exit_code == 0
    with pytest.raises(PoolError, match="another tokenizer"):
        TextGenerator.open(bundle, pool=tmp_path / "foreign")
    with pytest.raises(PoolError, match="holds windows of 16 tokens"):
        TextGenerator.open(bundle, pool=pool, drafting=TextDrafting(query=8))
    generator = TextGenerator.open(bundle, pool=pool, engine=EngineChoice(threads=1))
    with pytest.raises(PromptError, match=r"no group 'c'; it has: a, b"):
        generator.encode("x", group="c")
    tokens = pool / "tokens.npy"
    damaged = bytearray(tokens.read_bytes())
    damaged[-1] ^= 1
    tokens.write_bytes(damaged)
    with pytest.raises(PoolError, match="damaged"):
        TextGenerator.open(bundle, pool=pool)
