"""The command line on bad input: a message with file, place and remedy, and nothing half-written."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import bad, good, lines, only, run, user, write
from specrec.runtime import files as runtime_files
from tiny_bundle import ENGINE, Tiny, edit_manifest


def test_nothing_is_overwritten_unasked(tiny: Tiny, histories: Path, output: Path) -> None:
    output.write_text("precious")
    assert f"{output} exists already. Choose another name or pass --overwrite" in bad(
        "infer", tiny.bundle, histories, "-o", output
    )
    assert output.read_text() == "precious"
    good("infer", tiny.bundle, histories, "-o", output, "--overwrite")
    assert len(lines(output)) == 6
    output.unlink()
    rejects = output.with_name("recs.jsonl.rejects.jsonl")
    rejects.write_text("precious")
    assert f"{rejects} exists already." in bad("infer", tiny.bundle, histories, "-o", output)
    assert rejects.read_text() == "precious"
    good("infer", tiny.bundle, histories, "-o", output, "--overwrite")
    assert not rejects.exists()  # nothing was rejected


def test_outputs_that_cannot_be_are_refused_before_any_work(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    arguments = ["infer", tiny.bundle, histories, "--overwrite", "-o"]
    assert f"{histories} is an input as well. Choose another output." in bad(*arguments, histories)
    assert f"{histories} is an input as well." in bad(*arguments, tmp_path / "x", "--rejects", histories)
    assert f"--rejects {tmp_path}/x: expected the name of a file that is not the output" in bad(
        *arguments, tmp_path / "x", "--rejects", tmp_path / "x"
    )
    assert "--rejects -: expected the name of a file" in bad(*arguments, tmp_path / "x", "--rejects", "-")
    assert f"{tmp_path} is not a regular file. Choose another name, or - for standard output." in bad(
        *arguments, tmp_path
    )
    assert "/dev/null is not a regular file." in bad(*arguments, "/dev/null")
    (tmp_path / "file").touch()
    message = bad(*arguments, tmp_path / "file/recs.jsonl")
    assert "Cannot read or write:" in message
    assert "Check the path, its permissions and the free space." in message
    (tmp_path / "file").unlink()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_run_that_fails_in_the_middle_leaves_nothing(
    tiny: Tiny, histories: Path, output: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with histories.open("a") as file:
        file.write("malformed\n")
    write_line = runtime_files.write_line
    written: list[object] = []

    def fail_at_the_fourth(file: Any, line: Any) -> None:
        written.append(line)
        if len(written) == 4:
            raise error
        write_line(file, line)

    monkeypatch.setattr(runtime_files, "write_line", fail_at_the_fourth)
    result = run("infer", tiny.bundle, histories, "-o", output)
    assert result.exit_code == 1
    assert len(written) == 4
    assert isinstance(written[0], runtime_files.RejectLine)  # so that both files were begun
    only(output)
    if isinstance(error, OSError):
        assert "Error: Cannot read or write: [Errno 28] No space left on device. Check the path" in result.stderr
    # what was there before stays
    written.clear()
    output.write_text("old")
    output.with_name("recs.jsonl.rejects.jsonl").write_text("old rejects")
    assert run("infer", tiny.bundle, histories, "-o", output, "--overwrite").exit_code == 1
    assert output.read_text() == "old"
    assert output.with_name("recs.jsonl.rejects.jsonl").read_text() == "old rejects"


def test_a_file_that_breaks_off_leaves_no_output(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.inter.json"
    source.write_text('{"1": [1, 2],\n "2": [3, 4],\n "3": [')
    message = bad("infer", tiny.bundle, source, "-o", output)
    assert f"Error: {source}, line 3, column" in message
    assert "Is the file complete?" in message
    only(output)


def test_no_request_can_be_served(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "histories.jsonl", "{", user("a", "x"))
    message = bad("infer", tiny.bundle, source, "-o", output)
    assert f"No request could be served: see the reasons in {output}.rejects.jsonl." in message
    assert [reject["line"] for reject in lines(output.with_name("recs.jsonl.rejects.jsonl"))] == [1, 2]
    empty = write(tmp_path / "empty.jsonl")
    message = bad("infer", tiny.bundle, empty, "-o", tmp_path / "other.jsonl")
    assert f"{empty}: no request in it. Expected at least one history." in message


def test_history_files_that_cannot_be_read(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        text = bad("infer", tiny.bundle, *arguments, "-o", output)
        only(output)
        return text

    assert f"{tmp_path}/absent.jsonl: does not exist; expected a history file. Check the path." in message(
        histories, tmp_path / "absent.jsonl"
    )
    assert f"{tmp_path}: is a directory" in message(tmp_path, "--format", "jsonl")
    (tmp_path / "x.dat").write_text("1 2 3")
    assert f"{tmp_path}/x.dat: the name does not tell the format. Pass --format with one of: jsonl" in message(
        tmp_path / "x.dat"
    )
    assert f"an item base of 1 is for AtSpeed files only; got {histories}. Leave it out." in message(
        histories, "--item-base", 1
    )
    (tmp_path / "x.csv").write_text("user,items\n1,2\n")
    assert "x.csv, line 1: got the columns ['user', 'items']; expected user_id and history_item_id" in message(
        tmp_path / "x.csv"
    )
    (tmp_path / "wide.jsonl").write_text('{"user": "1", "items": ["1"]}', encoding="utf-16")
    assert "wide.jsonl: the file is UTF-16; expected UTF-8. Save it as UTF-8." in message(tmp_path / "wide.jsonl")


def test_a_run_that_serves_nobody_leaves_no_output(bundle: Path, output: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("nothing\n")
    assert "No request could be served" in bad("infer", bundle, tmp_path / "bad.jsonl", "-o", output)
    assert not output.exists()


def test_bundles_that_cannot_be_used(tiny: Tiny, bundle: Path, histories: Path, output: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        text = bad("infer", *arguments, histories, "-o", output)
        only(output)
        return text

    assert "absent is not a bundle: it has no manifest.json. Make one with: specrec export" in message(
        tmp_path / "absent"
    )
    assert "Choose" not in message(bundle, "--engine", "nothing")
    assert f"no engine 'nothing' (built: {ENGINE}). Build one with: specrec build-engine {bundle}" in message(
        bundle, "--engine", "nothing"
    )
    graph = bundle / "engines" / ENGINE / "draft/model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    assert f"{graph} is damaged: its SHA-256 is " in message(bundle)
    assert f"Write it again with: specrec build-engine {bundle} --backend onnxruntime" in message(bundle)
    good("build-engine", bundle, "--overwrite", "--threads", 1)  # the remedy helps
    good("infer", bundle, histories, "-o", tmp_path / "repaired.jsonl")
    shutil.rmtree(bundle / "engines")
    assert f"{bundle} has no engine yet. Build one with: specrec build-engine {bundle}" in message(bundle)
    edit_manifest(bundle, draft=None)
    good("build-engine", bundle, "--threads", 1)
    assert f"{bundle} has no draft model. Use --drafter none, or export it with --draft DIR." in message(
        bundle, "--drafter", "model"
    )
    good("infer", bundle, histories, "-o", tmp_path / "plain.jsonl")  # by default: no drafting
    good("infer", bundle, histories, "-o", output, "--drafter", "none")


def test_build_engine_refuses(tiny: Tiny, bundle: Path) -> None:
    assert "is not a bundle" in bad("build-engine", bundle / "target")
    assert f"{ENGINE} exists already. Choose another name or pass --overwrite" in bad("build-engine", bundle)
    assert "are fp32, asked for fp16. Export the checkpoints again with: specrec export ... --precision fp16" in bad(
        "build-engine", bundle, "--precision", "fp16"
    )
    assert "is not a bundle" in bad("inspect", bundle / "draft")


def catalog_twice(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text(
        '{\n"a": ["<a_0>", "<b_0>"],\n"b": ["<a_1>", "<b_0>"],\n"a": ["<a_2>", "<b_0>"]}'
    )
    return ["--catalog", folder / "index.json"]


def catalog_unequal(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text('{"a": ["<a_0>", "<b_0>"], "b": ["<a_1>"]}')
    return ["--catalog", folder / "index.json"]


def catalog_cut(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text('{"a": ["<a_0>", "<b_0>"],\n"b": ["<a_1>"')
    return ["--catalog", folder / "index.json"]


def catalog_of_another_model(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "index.json").write_text('{"a": ["<a_0>", "<q_9>"]}')
    return ["--catalog", folder / "index.json"]


def unsupported(tiny: Tiny, folder: Path) -> list[object]:
    checkpoint = shutil.copytree(tiny.target, folder / "gpt")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))
    return ["--target", checkpoint]


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        (catalog_twice, ["index.json", "item 'a' occurs on lines 2, 4", "Keep one entry for each item"]),
        (catalog_unequal, ["index.json", "length"]),
        (catalog_cut, ["index.json, line 2, column", "not valid JSON", "Is the file complete?"]),
        (catalog_of_another_model, ["Of the catalog's 2 tokens 1 are missing in the target's tokenizer: <q_9>"]),
        (unsupported, ["gpt", "GPT2LMHeadModel", "Supported are LlamaForCausalLM, "]),
        (lambda tiny, folder: ["--catalog", folder / "absent.json"], ["absent.json: cannot be read", "Check the path"]),
        (lambda tiny, folder: ["--target", folder / "absent"], ["absent has no config.json", "save_pretrained"]),
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
