"""What verbs do with an engine that gives no numbers."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import bad, good, lines, run, user, write
from nan_cases import marked
from specbeam.catalog.errors import EngineError
from specbeam.engines import compare as check
from specbeam.engines.base import Engine
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.onnxruntime.backend import OrtBackend
from tiny_bundle import ENGINE, Tiny, break_embedding, break_rows
from tiny_models import identifier_tokens, make_model, make_tokenizer, tiny_catalog


def requests_of(item: str, holders: set[str], count: int, at: Sequence[int]) -> list[dict]:
    """Requests that are good, but for those at some places."""
    fine = [str(i) for i in range(40) if str(i) not in holders]
    return [user(f"u{i}", item if i in at else fine[i % len(fine)]) for i in range(count)]


def test_infer_rejects_a_request_without_numbers_and_exits_with_1(
    tiny: Tiny, bundle: Path, output: Path, tmp_path: Path
) -> None:
    token, item, holders = marked(tiny)
    break_rows(bundle, [token])
    path = write(tmp_path / "h.jsonl", *requests_of(item, holders, 12, [2, 7]))
    message = bad("infer", bundle, path, "-o", output, "-k", 3, "--threads", 1)
    assert "2 requests could not be answered, and are among the rejects" in message
    assert f"{ENGINE} (fp32) gives NaN" in message
    assert f"10 were served: see {output}" in message
    good("infer", tiny.bundle, path, "-o", tmp_path / "whole.jsonl", "-k", 3, "--threads", 1)
    expected = [line for line in lines(tmp_path / "whole.jsonl") if line["line"] not in (3, 8)]
    assert [line["line"] for line in lines(output)] == [line["line"] for line in expected]
    for got, wanted in zip(lines(output), expected, strict=True):
        assert [best["item"] for best in got["items"]] == [best["item"] for best in wanted["items"]]
    rejects = lines(tmp_path / "recs.jsonl.rejects.jsonl")
    assert [(reject["line"], json.loads(reject["raw"])["items"]) for reject in rejects] == [(3, [item]), (8, [item])]
    assert all(f"{ENGINE} (fp32) gives NaN" in reject["reason"] for reject in rejects)


@pytest.mark.parametrize("batch", [1, 8])
def test_infer_stops_when_whole_batches_have_no_numbers(
    tiny: Tiny, bundle: Path, output: Path, tmp_path: Path, batch: int
) -> None:
    """What was served before is kept, and another run goes on with it: the engine may do better then."""
    token, item, holders = marked(tiny)
    break_rows(bundle, [token])
    entries = requests_of(item, holders, 8, []) + requests_of(item, holders, 30, range(30))
    path = write(tmp_path / "h.jsonl", *entries)
    command = ["infer", bundle, path, "-o", output, "--batch-size", batch, "--threads", 1]
    message = bad(*command)
    assert "Stopped, because whole batches failed: 8 requests in succession could not be answered" in message
    assert f"8 requests are kept in {output}.partial. Run the same command again to go on" in message
    assert not output.exists()
    shutil.rmtree(bundle / "engines" / ENGINE)
    shutil.copytree(tiny.bundle / "engines" / ENGINE, bundle / "engines" / ENGINE)
    assert "differs in: engine" in bad(*command)  # it is another engine


def test_an_engine_of_nothing_but_nan(bundle: Path, output: Path, histories: Path) -> None:
    """Every verb that asks it fails, and leaves no list behind."""
    break_rows(bundle, slice(None))
    assert "6 requests could not be answered" in bad("infer", bundle, histories, "-o", output, "--threads", 1)
    assert not output.exists()
    page = output.with_name("tree.html")
    assert f"{ENGINE} (fp32) gives NaN" in bad("explain", bundle, "--history", "1,2", "-o", page, "--threads", 1)
    assert not page.exists()
    assert f"{ENGINE} (fp32) gives NaN" in bad("tune", bundle, histories, "--threads", 1)


def test_strict_input_says_that_lines_were_rejected(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    fine = write(tmp_path / "fine.jsonl", user("a", 1), user("b", 2))
    some = write(tmp_path / "some.jsonl", user("a", 1), "nonsense", user("b", 2))
    command = ("infer", tiny.bundle, "-o", output, "--overwrite", "--threads", 1)
    good(*command, fine, "--strict-input")
    good(*command, some)
    result = run(*command, some, "--strict-input")
    assert result.exit_code == 3
    assert "1 lines were rejected" in result.output
    assert len(lines(output)) == 2
    assert run(*command, write(tmp_path / "none.jsonl", "nonsense"), "--strict-input").exit_code == 1
    groups = ("group-users", some, "-o", tmp_path / "g.json", "--groups", 2, "--method", "random", "--overwrite")
    good(*groups)
    assert run(*groups, "--strict-input").exit_code == 3


def test_a_broken_draft_is_told_of(tiny: Tiny, bundle: Path, output: Path, tmp_path: Path) -> None:
    break_rows(bundle, slice(None), "draft")
    path = write(tmp_path / "h.jsonl", *(user(i, i) for i in range(5)))
    result = good("infer", bundle, path, "-o", output, "--speculation", "fixed", "--threads", 1)
    assert "for 5 requests the draft's engine gave NaN or infinity and drafted nothing" in result.output
    good("infer", tiny.bundle, path, "-o", tmp_path / "whole.jsonl", "--threads", 1)
    for got, wanted in zip(lines(output), lines(tmp_path / "whole.jsonl"), strict=True):
        assert [best["item"] for best in got["items"]] == [best["item"] for best in wanted["items"]]


def test_a_build_without_numbers_is_refused(tiny: Tiny, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only prompts of the bundle's own show it: no random token is <s>."""
    engine = bundle / "engines" / ENGINE
    before = (engine / "engine.json").read_bytes()
    real, loaded = OrtBackend.load, []

    def load(self: OrtBackend, opened: Bundle, role: str, folder: Path, *rest: Any, **head: Any) -> Engine:
        if role == "draft":
            break_embedding(folder / "model.onnx", [2])
        loaded.append(role)
        return real(self, opened, role, folder, *rest, **head)

    monkeypatch.setattr(OrtBackend, "load", load)
    monkeypatch.setattr(check, "random_tokens", lambda facts, past, new, batch: np.full((batch, new), 10))
    message = r"The draft, built in fp32, gives NaN or infinity .* on the prompt of a history \(length 1\)"
    with pytest.raises(EngineError, match=message):
        build_engine(bundle, threads=1, overwrite=True)
    assert loaded == ["target", "target", "draft", "draft"]  # the head that serves by default comes last
    assert (engine / "engine.json").read_bytes() == before


def test_a_model_that_overflows_in_fp16_is_called_that(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(identifier_tokens())
    model = make_model(rows=len(tokenizer))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(3e4)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "target")
    export = ("export", "--target", tmp_path / "target", "--catalog", tiny_catalog(tmp_path / "index.json"))
    good(*export, "--output", tmp_path / "bundle")
    message = bad("build-engine", tmp_path / "bundle", "--precision", "fp16", "--threads", 1)
    assert "The target's activations overflow in fp16, whose largest finite number is 65,504: on " in message
    assert f"specbeam build-engine {tmp_path / 'bundle'} --precision fp32" in message
    good("build-engine", tmp_path / "bundle", "--threads", 1)
    assert [path.name for path in (tmp_path / "bundle/engines").iterdir() if path.is_dir()] == [ENGINE]
    message = bad(*export, "--output", tmp_path / "half", "--precision", "fp16")
    assert "The LlamaForCausalLM's activations overflow in fp16, whose largest finite number is 65,504" in message
    assert "fault of the exporter" not in message
    assert not (tmp_path / "half").exists()
