"""What infer, build-engine and export refuse, before any work."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import bad, good, only, run
from tiny_bundle import ENGINE, Tiny, edit_manifest

SAMPLED, TOLERANT = ["--verify", "sampled"], ["--verify", "tolerant", "--slack", 0.1]


REFUSED: list[tuple[list[object], str]] = [
    (["--slack", 0.1], "a slack of 0.1 is for tolerant verification; got strict. Leave it out"),
    ([*SAMPLED, "--slack", 0], "a slack of 0 is for tolerant verification; got sampled. Leave it out"),
    (["--verify", "tolerant"], "tolerant verification needs a slack: how many nats"),
    *(
        (["--verify", "tolerant", "--slack", slack], f"got a slack of {slack}; expected nats, 0 or more")
        for slack in ("-1", "nan", "inf")
    ),
    *(
        ([*SAMPLED, "--temperature", value], f"got a temperature of {value}; expected more than 0")
        for value in ("0", "-1", "nan", "inf")
    ),
    (["--verify", "relaxed", "--temperature", 0], "got a temperature of 0; expected more than 0"),
    (["--temperature", 1], "a temperature of 1 is for relaxed and sampled verification; got strict"),
    ([*TOLERANT, "--temperature", 1], "a temperature of 1 is for relaxed and sampled verification; got tolerant"),
    (["--seed", 3], "a seed of 3 is for relaxed and sampled verification; got strict, which samples nothing"),
    ([*TOLERANT, "--seed", 0], "a seed of 0 is for relaxed and sampled verification; got tolerant"),
    ([*SAMPLED, "--scoring", "full"], "sampled verification cannot use full scoring"),
    (["--verify", "relaxed", "--speculation", "auto"], "the lists of relaxed verification depend on what is drafted"),
    ([*TOLERANT, "--speculation", "auto"], "the lists of tolerant verification depend on what is drafted"),
    (["--speculation", "auto", "--draft-width", 4], "auto decides how much to draft"),
    (["--speculation", "auto", "--draft-length", 1], "auto decides how much to draft"),
    (["--speculation", "auto", "--engine", "torch-cpu-fp32"], "torch-cpu-fp32 has no measured latency to plan by"),
    *(
        (["--drafter", "none", *options], "without a drafter nothing is drafted. Leave")
        for options in (
            ["--draft-width", 4], ["--draft-length", 1], ["--speculation", "fixed"], ["--speculation", "auto"]
        )
    ),
    (["-k", 201], "k is 201, but this bundle serves lists of at most 200 items. Ask for fewer, or export it again"),
    (["--engine", "nothing"], "no engine 'nothing' (built: "),
    (["--item-base", 1], "an item base of 1 is for AtSpeed files only"),
    (["--allow", "/nowhere"], "/nowhere: cannot be read: No such file or directory. Check the path"),
    (["--deny", "/nowhere"], "/nowhere: cannot be read: No such file or directory. Check the path"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"), REFUSED, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_what_cannot_be_is_refused_before_an_engine_is_loaded(
    tiny: Tiny, histories: Path, output: Path, monkeypatch: pytest.MonkeyPatch, options: list[object], message: str
) -> None:
    def load(*arguments: object, **more: object) -> None:
        pytest.fail("loaded an engine")

    monkeypatch.setattr("specbeam.runtime.loaded.load_engine", load)
    assert message in bad("infer", tiny.bundle, histories, "-o", output, *options)
    only(output)
    output.write_text("old")
    assert message in bad("infer", tiny.bundle, histories, "-o", output, "--overwrite", *options)
    assert output.read_text() == "old"


@pytest.mark.parametrize(
    "options", [["-k", 0], ["--verify", "exact"], ["--temperature", "hot"], ["--draft-width", 0], ["--seed", 1.5]]
)
def test_options_that_are_no_choice_are_usage_errors(
    tiny: Tiny, histories: Path, output: Path, options: list[object]
) -> None:
    result = run("infer", tiny.bundle, histories, "-o", output, *options)
    assert result.exit_code == 2
    assert f"Invalid value for '{options[0]}'" in result.stderr or "Invalid value for '--top-k' / '-k'" in result.stderr
    only(output)


def test_lists_of_items_that_cannot_be_used(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"

    def message(content: bytes) -> str:
        path.write_bytes(content)
        texts = {bad("infer", tiny.bundle, histories, "-o", output, option, path) for option in ("--allow", "--deny")}
        only(output)
        (text,) = texts
        return text

    assert f"{path}: no item of the catalog in it (got 'x', for example). Expected item ids, one a line" in message(
        b"x\ny\n"
    )
    assert f"{path}: no item of the catalog in it (got an empty file)." in message(b"\n \n")
    assert f"{path}: not UTF-8; expected item ids, one a line. Save the file as UTF-8." in message(b"1\n\xff\n")
    assert f"{path} is an input as well. Choose another output." in bad(
        "infer", tiny.bundle, histories, "-o", path, "--deny", path, "--overwrite"
    )


def test_a_run_that_serves_nobody_leaves_no_output(bundle: Path, output: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("nothing\n")
    assert "No request could be served" in bad("infer", bundle, tmp_path / "bad.jsonl", "-o", output)
    assert not output.exists()


def test_bundles_that_cannot_be_used(tiny: Tiny, bundle: Path, histories: Path, output: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        text = bad("infer", *arguments, histories, "-o", output)
        only(output)
        return text

    assert "absent is not a bundle: it has no manifest.json. Make one with: specbeam export" in message(
        tmp_path / "absent"
    )
    assert "Choose" not in message(bundle, "--engine", "nothing")
    assert f"no engine 'nothing' (built: {ENGINE}). Build one with: specbeam build-engine {bundle}" in message(
        bundle, "--engine", "nothing"
    )
    graph = bundle / "engines" / ENGINE / "draft/model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    assert f"{graph} is damaged: its SHA-256 is " in message(bundle)
    assert f"Write it again with: specbeam build-engine {bundle} --backend onnxruntime" in message(bundle)
    good("build-engine", bundle, "--overwrite", "--threads", 1)  # the remedy helps
    good("infer", bundle, histories, "-o", tmp_path / "repaired.jsonl")
    shutil.rmtree(bundle / "engines")
    assert f"{bundle} has no engine yet. Build one with: specbeam build-engine {bundle}" in message(bundle)
    edit_manifest(bundle, draft=None)
    good("build-engine", bundle, "--threads", 1)
    assert f"{bundle} has no draft model. Leave it out (--drafter none; with a pool, retrieval), or export" in message(
        bundle, "--drafter", "model"
    )
    good("infer", bundle, histories, "-o", tmp_path / "plain.jsonl")  # by default: no drafting
    good("infer", bundle, histories, "-o", output, "--drafter", "none")


def test_build_engine_refuses(tiny: Tiny, bundle: Path) -> None:
    assert "is not a bundle" in bad("build-engine", bundle / "target")
    assert f"{ENGINE} exists already. Choose another name or pass --overwrite" in bad("build-engine", bundle)
    assert "The onnxruntime backend on cpu runs fp32, fp16, int8; got bf16." in bad(
        "build-engine", bundle, "--precision", "bf16"
    )
    edit_manifest(bundle, precision="fp16")
    assert (
        "are fp16, asked for fp32: only fp32 graphs are converted. Export the checkpoints again with: specbeam"
        in bad("build-engine", bundle, "--precision", "fp32")
    )
    assert "is not a bundle" in bad("inspect", bundle / "draft")


def catalog_twice(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text(
        '{\n"a": ["<a_0>", "<b_0>"],\n"b": ["<a_1>", "<b_0>"],\n"a": ["<a_2>", "<b_0>"]}'
    )
    return ["--catalog", folder / "index.json"]


def catalog_without_ends(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text('{"a": ["<a_0>", "<b_0>"], "b": ["<a_0>"]}')
    return ["--catalog", folder / "index.json", "--end-token", "never"]


def catalog_cut(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text('{"a": ["<a_0>", "<b_0>"],\n"b": ["<a_1>"')
    return ["--catalog", folder / "index.json"]


def catalog_of_another_model(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text('{"a": ["<a_0>", "<q_9>"]}')
    return ["--catalog", folder / "index.json"]


def unsupported(tiny: Tiny, folder: Path) -> list[object]:
    checkpoint = shutil.copytree(tiny.target, folder / "gpt")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(
        json.dumps(config | {"architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo"})
    )
    return ["--target", checkpoint]


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        (catalog_twice, ["index.json", "item 'a' occurs on lines 2, 4", "Keep one entry for each item"]),
        (catalog_without_ends, ["1 identifiers are the beginning of others", "Export with --end-token auto"]),
        (catalog_cut, ["index.json, line 2, column", "not valid JSON", "Is the file complete?"]),
        (catalog_of_another_model, ["1 of the catalog's 2 tokens are not in the tokenizer's vocabulary: '<q_9>'. Add"]),
        (unsupported, ["gpt", "GPTNeoForCausalLM", "counts slots", "Supported is any decoder-only architecture"]),
        (lambda tiny, folder: ["--catalog", folder / "absent.json"], ["absent.json: cannot be read", "Check the path"]),
        (lambda tiny, folder: ["--target", folder / "absent"], ["absent; expected a checkpoint", "save_pretrained"]),
        (lambda tiny, folder: ["--items", tiny.target / "model.safetensors"], ["model.safetensors"]),
        (lambda tiny, folder: ["--output", tiny.bundle], ["bundle exists already", "--overwrite"]),
        (lambda tiny, folder: ["--prompt", "no history"], ["holds {history} 0 times; expected once"]),
    ],
)  # fmt: skip
def test_exports_that_are_refused(tiny: Tiny, tmp_path: Path, fault: Any, parts: list[str]) -> None:
    """Options given later win."""
    message = bad(
        "export", "--target", tiny.target, "--draft", tiny.draft, "--catalog", tiny.index,
        "--output", tmp_path / "out", *fault(tiny, tmp_path),
    )  # fmt: skip
    assert [part for part in parts if part not in message] == [], message
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
