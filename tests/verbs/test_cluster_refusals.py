"""What --ray does not go with, told before any cluster is asked."""

from pathlib import Path

import pytest

from commands import bad, good, user, write
from specbeam.runtime.runs.parts import MANIFEST
from specbeam.verbs.overwrite import losses
from tiny_bundle import Tiny


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{histories}", "-o", "{output}", "--ray-address", "auto"], "--ray-address: for --ray only"),
        (["{histories}", "-o", "-", "--ray"], "--output -: with --ray, expected the name of a folder to make"),
        (["{histories}", "-o", "s3://bucket/recs", "--ray"], "with --ray, expected the name of a folder to make"),
        (["{histories}", "-o", "{output}", "--rejects", "bad", "--ray"], "--rejects: with --ray they lie beside"),
        (["-", "-o", "{output}", "--ray"], "with --ray standard input is not read"),
        (["{output}/in/h.jsonl", "-o", "{output}", "--ray"], "one of it and the output is in the other"),
        (["{output}/..", "-o", "{output}", "--ray"], "one of it and the output is in the other"),
        (["s3://bucket/h.jsonl", "-o", "{output}"], "s3://bucket/h.jsonl: URIs are for infer --ray. Fetch the file"),
        (["absent.jsonl", "-o", "{output}", "--ray"], "absent.jsonl: does not exist"),
    ],
)
def test_infer(tiny: Tiny, histories: Path, output: Path, options: list[str], message: str) -> None:
    words = [option.format(histories=histories, output=output) for option in options]
    assert message in bad("infer", tiny.bundle, *words)
    assert not output.exists()


def test_a_folder_that_is_not_ours(tiny: Tiny, histories: Path, tmp_path: Path) -> None:
    (tmp_path / "recs").mkdir()
    (tmp_path / "recs" / "thesis.txt").write_text("mine")
    command = ["infer", tiny.bundle, histories, "-o", tmp_path / "recs", "--ray"]
    assert "exists already. Choose another name or pass --overwrite" in bad(*command)
    assert f"it has no {MANIFEST}, so SpecBeam did not write it" in bad(*command, "--overwrite")
    assert [path.name for path in (tmp_path / "recs").iterdir()] == ["thesis.txt"]


def test_what_overwriting_costs(tmp_path: Path) -> None:
    for name in (
        MANIFEST,
        "part-000000-00000000.jsonl",
        "rejects-000000-00000000.jsonl",
        "notes.txt",
        "more/part-0.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert losses(tmp_path, MANIFEST) == ["more/part-0.jsonl", "notes.txt"]


def test_one_run_on_a_machine_and_one_on_a_cluster_do_not_go_on_with_each_other(
    tiny: Tiny, tmp_path: Path, output: Path
) -> None:
    path = write(tmp_path / "h.jsonl", user("u", 1))
    output.with_name(f"{output.name}.partial").mkdir()
    (output.with_name(f"{output.name}.partial") / "x").write_text("x")
    assert "does not say which run" in bad("infer", tiny.bundle, path, "-o", output, "--ray")
    assert "does not say which run" in bad("infer", tiny.bundle, path, "-o", output)


def test_generate_has_no_workers_of_its_own(tmp_path: Path) -> None:
    prompts = write(tmp_path / "p.jsonl", {"id": "u", "prompt": "x"})
    assert "--workers: for --ray only" in bad("generate", tmp_path, prompts, "-o", tmp_path / "t", "--workers", 2)
    assert "URIs are for infer --ray" not in good("generate", "--help").output
