"""The command line on bad input: a message with file, place and remedy, and nothing half-written."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import bad, good, lines, only, run, user, write
from specbeam.runtime.runs.journal import Journal
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
def test_a_run_that_fails_in_the_middle_keeps_what_was_done(
    tiny: Tiny, histories: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with histories.open("a") as file:
        file.write("malformed\n")
    options = ["--batch-size", 2, "--threads", 1]
    good("infer", tiny.bundle, histories, "-o", tmp_path / "whole", *options)
    keep, kept = Journal.keep, list[int]()

    def fail_at_the_third(self: Journal[Any], lines: Any, counts: Any) -> None:
        kept.append(len(lines))
        if len(kept) == 3:
            raise error
        keep(self, lines, counts)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "keep", fail_at_the_third)
        result = run("infer", tiny.bundle, histories, "-o", output, *options)
        assert (result.exit_code, len(kept)) == (1, 3)
        assert f"Not all was done: 2 requests are kept in {output}.partial. Run the same command again to go on" in (
            result.stderr
        )
        assert not output.exists()
        if isinstance(error, OSError):
            assert f" while writing {output}" in result.stderr
            assert "Free some space there" in result.stderr
        # what was there before stays
        kept.clear()
        old = tmp_path / "old"
        old.write_text("old")
        assert run("infer", tiny.bundle, histories, "-o", old, "--overwrite", *options).exit_code == 1
        assert old.read_text() == "old"
    result = good("infer", tiny.bundle, histories, "-o", output, *options)
    assert "Going on with an interrupted run: 2 served and 1 rejected are kept in" in result.stderr
    assert "2 lists are of an earlier run that was interrupted" in result.output
    for ending in ("", ".rejects.jsonl"):
        assert Path(f"{output}{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()
    assert not Path(f"{output}.partial").exists()
    assert not Path(f"{output}.partial.log").exists()


def test_runs_that_do_not_go_on(tiny: Tiny, histories: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["infer", tiny.bundle, histories, "-o", output, "--threads", 1, "--batch-size", 2]
    keep = Journal.keep
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "keep", lambda self, *lines: (keep(self, *lines), (_ for _ in ()).throw(ValueError)))
        assert isinstance(run(*command).exception, ValueError)
    assert "differs in: top_k (20, now 5)" in bad(*command, "--top-k", 5)
    with histories.open("a") as file:
        file.write(json.dumps(user("new", "1")) + "\n")
    assert "differs in: what is read: histories 1" in bad(*command)
    piped = bad("infer", tiny.bundle, "-", *command[3:])
    assert "histories 1 of this one come through a pipe, which cannot be read twice" in piped
    assert f"{output}.partial: the run keeps its lines there" in bad(
        "infer", tiny.bundle, f"{output}.partial", "--format", "jsonl", *command[3:]
    )
    assert "--overwrite discards" in good(*command, "--overwrite").stderr
    assert len(lines(output)) == 7


def test_a_file_that_breaks_off_keeps_what_it_gave(tiny: Tiny, histories: Path, output: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.inter.json"
    source.write_text('{"1": [1, 2],\n "2": [3, 4],\n "3": [')
    message = bad("infer", tiny.bundle, source, histories, "-o", output)
    assert f"1 of the files could not be read to the end: see the reasons in {output}.rejects.jsonl." in message
    assert f"What was read is served, in {output}." in message
    assert [line["user"] for line in lines(output)][:2] == ["1", "2"]
    assert len(lines(output)) == 2 + len(lines(histories))  # the next file is read
    (reject,) = lines(output.with_name("recs.jsonl.rejects.jsonl"))
    assert reject["reason"].startswith(f"what follows cannot be read: {source}, line 3, column")
    source.write_text('{"3": [')  # nothing has been read: nothing to keep
    message = bad("infer", tiny.bundle, source, histories, "-o", output, "--overwrite")
    assert f"Error: {source}, line 1, column" in message
    assert "Is the file complete?" in message


def test_requests_that_allow_nothing_known_are_warned_of(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    unknown, some = {**user("a", "1"), "allow": ["x", "y"]}, {**user("b", "1"), "allow": ["1", "x"], "deny": ["z"]}
    nothing = {**user("c", "1"), "allow": []}  # which is what it says
    source = write(tmp_path / "histories.jsonl", unknown, some, nothing)
    result = run("infer", tiny.bundle, source, "-o", output)
    assert result.exit_code == 0
    assert [(line["user"], len(line["items"])) for line in lines(output)] == [("a", 0), ("b", 1), ("c", 0)]
    assert f"{source}, line 1: the catalog has none of the 2 items that user a allows (e.g. 'x')" in result.stderr
    assert result.stderr.count("the catalog has none") == 1
    assert "4 items of requests' own allow and deny lists are not in the catalog" in result.stdout


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
    (checkpoint / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))
    return ["--target", checkpoint]


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        (catalog_twice, ["index.json", "item 'a' occurs on lines 2, 4", "Keep one entry for each item"]),
        (catalog_without_ends, ["1 identifiers are the beginning of others", "Export with --end-token auto"]),
        (catalog_cut, ["index.json, line 2, column", "not valid JSON", "Is the file complete?"]),
        (catalog_of_another_model, ["1 of the catalog's 2 tokens are not in the tokenizer's vocabulary: '<q_9>'. Add"]),
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
