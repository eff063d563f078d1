"""Artifacts that do not open are made again by the command that is said."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import bad, good, user, write
from specbeam.catalog.errors import BundleError, PoolError, SpecBeamError
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.facts import ENGINE_FACTS
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.texts import TextBundle
from specbeam.pools.files import POOL_FILE
from specbeam.pools.items.pool import ItemPool
from specbeam.pools.texts.pool import TextPool
from specbeam.runtime import EngineChoice, Recommender
from tiny_bundle import ENGINE
from upgrade_cases import INT8, KEPT, same_minor

TUNING = "tuning-strict-full.json"


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    return write(tmp_path / "histories.jsonl", *(user(f"u{i}", str(i % 6), str((i + 1) % 6)) for i in range(6)))


def run_as_printed(message: str, **capitals: object) -> None:
    """Run the command at the end of a message, its words in capitals replaced."""
    words = shlex.split(message.partition("with: specbeam ")[2].partition(" (or ")[0])
    good(*(capitals.get(word, word) for word in words))


@pytest.mark.parametrize("name", ["bundle-1", "bundle-1-unsealed"])
def test_a_bundle_of_schema_1_is_exported_again_by_the_command_that_is_said(
    kept: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    from tiny_models import tiny_catalog, tiny_checkpoint

    bundle = kept(name)
    before = json.loads((bundle / MANIFEST).read_bytes())
    with pytest.raises(BundleError, match=r"manifest\.json has schema version 1, this SpecBeam reads 2\.") as refused:
        Recommender.open(bundle)
    command = "--target TARGET --draft DRAFT --catalog CATALOG --history-length 4 --no-checkpoints --output"
    assert str(refused.value).endswith(f"with: specbeam export {command} {bundle} --overwrite")
    if name == "bundle-1":
        model = tiny_checkpoint(tmp_path / "model", levels=2, codes=2)
        catalog = tiny_catalog(tmp_path / "index.json", levels=2, codes=2)
        run_as_printed(str(refused.value), TARGET=model, DRAFT=model, CATALOG=catalog)
        after = json.loads((bundle / MANIFEST).read_bytes())
        assert [after[key] for key in ("prompt", "precision", "scoring")] == [
            before[key] for key in ("prompt", "precision", "scoring")
        ]


def test_an_engine_of_schema_2_is_built_again_by_the_command_that_is_said(kept: Callable[[str], Path]) -> None:
    bundle = kept("bundle-2-engine-2")
    with pytest.raises(BundleError, match=r"engine\.json has schema version 2, this SpecBeam reads 3\.") as refused:
        Recommender.open(bundle)
    command = f"specbeam build-engine {bundle} --backend onnxruntime --device cpu --overwrite"
    assert str(refused.value).endswith(f"with: {command}")
    assert command in " ".join(good("inspect", bundle).output.split())
    run_as_printed(str(refused.value))
    assert [
        item.item
        for item in Recommender.open(bundle, engine=EngineChoice(threads=1)).recommend([["0", "1"]], 2)[0].items
    ] == ["1", "2"]


def test_a_tuning_of_schema_2_is_tuned_again_by_the_command_that_is_said(
    kept: Callable[[str], Path], histories: Path
) -> None:
    bundle = kept("bundle-2-tuning-2")
    if not same_minor(bundle, ENGINE):
        good("build-engine", bundle, "--overwrite")
        shutil.copy(KEPT / bundle.name / "engines" / ENGINE / TUNING, bundle / "engines" / ENGINE)
    told = bad("infer", bundle, histories, "--engine", ENGINE, "--output", bundle.parent / "out.jsonl")
    assert f"{TUNING} has schema version 2, this SpecBeam reads 3." in told
    assert f"with: specbeam tune {bundle} HISTORIES --engine {ENGINE} --scoring full (or do without it" in told
    run_as_printed(told, HISTORIES=histories)
    good("infer", bundle, histories, "--engine", ENGINE, "--top-k", 2, "--output", bundle.parent / "out.jsonl")


def test_an_engine_of_our_schema_that_says_less_is_no_damaged_one() -> None:
    bundle = Bundle.open(KEPT / "bundle-2-tuning-2")
    told = r"is whole, but not as this SpecBeam \(.*\) writes schema 3: .*`kept`.* Write it again with: specbeam build-"
    with pytest.raises(BundleError, match=told):
        bundle.engine_facts(INT8)


def test_nesting_as_deep_as_can_be_read_is_refused_as_damage(kept: Callable[[str], Path]) -> None:
    manifest = kept("text-2") / MANIFEST
    for depth in range(900, 1010):
        manifest.write_text('{"schema_version": 2, "deep": ' + '{"a":' * depth + "1" + "}" * (depth + 1))
        with pytest.raises(BundleError, match=r"manifest\.json is damaged: "):
            Bundle.open(manifest.parent)


def opened(path: Path) -> object:
    """Open whatever an artifact is."""
    if (path / POOL_FILE).is_file():
        return ItemPool.open(path) if path.name.startswith("item") else TextPool.open(path)
    if path.name.startswith("text"):
        return TextBundle.open(path)
    return Recommender.open(path, engine=EngineChoice(threads=1))


@pytest.mark.parametrize(
    ("name", "file", "command"),
    [
        ("bundle-2", MANIFEST, "export --target TARGET --draft DRAFT --catalog CATALOG --history-length 4 --no-check"),
        ("text-2", MANIFEST, "export --text --target TARGET --no-checkpoints --output {} --overwrite"),
        ("bundle-2", f"engines/{ENGINE}/{ENGINE_FACTS}", "build-engine {} --backend onnxruntime --device cpu --over"),
        ("bundle-2", f"engines/{ENGINE}/{TUNING}", f"tune {{}} HISTORIES --engine {ENGINE} --scoring full"),
        ("item-pool-1", POOL_FILE, "build-pool --items HISTORIES --output {} --overwrite"),
        ("text-pool-1", POOL_FILE, "build-pool TEXTS.jsonl --tokenizer BUNDLE --output {} --overwrite"),
    ],
)
def test_what_a_later_version_wrote_is_told_apart(
    kept: Callable[[str], Path], name: str, file: str, command: str
) -> None:
    path = kept(name)
    content = json.loads((path / file).read_bytes())
    number = content["schema_version"]
    (path / file).write_text(json.dumps(content | {"schema_version": number + 1, "specbeam_version": "7.5", "new": 1}))
    with pytest.raises((BundleError, PoolError)) as refused:
        opened(path)
    told = str(refused.value)
    assert told.startswith(f"{path / file} has schema version {number + 1}, of a later SpecBeam (7.5); this one (")
    assert f") reads {number}. Install the later one, or write it again for this one with: specbeam " in told
    assert command.format(path) in told


def test_the_default_engine_of_a_later_version_is_asked_for_only_where_there_are_several(
    kept: Callable[[str], Path],
) -> None:
    bundle = kept("bundle-2")
    (bundle / "engines" / "default.json").write_text('{"schema_version": 2}')
    assert default_engine(Bundle.open(bundle)) == ENGINE
    shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines" / INT8)
    with pytest.raises(BundleError, match=r"schema version 2, of a later SpecBeam; .* reads 1\..* --default$"):
        default_engine(Bundle.open(bundle))


def test_a_pool_of_a_later_version_is_built_again_by_the_command_that_is_said(
    kept: Callable[[str], Path], histories: Path
) -> None:
    pool = kept("item-pool-1")
    (pool / POOL_FILE).write_text('{"schema_version": 2, "kind": "items"}')
    with pytest.raises(SpecBeamError) as refused:
        ItemPool.open(pool)
    run_as_printed(str(refused.value), HISTORIES=histories)
    assert ItemPool.open(pool).ids == [str(i) for i in range(6)]


def test_what_a_bundle_was_exported_with_is_in_the_command(kept: Callable[[str], Path]) -> None:
    bundle = kept("bundle-2")
    content = json.loads((bundle / MANIFEST).read_bytes())
    content |= {"schema_version": 1, "draft": None, "precision": "fp16", "scoring": "constrained", "max_top_k": 7}
    content["prompt_options"] |= {"prompt": "Bought: {history}", "separator": ", "}
    content["files"]["target/checkpoint/config.json"] = {}
    titled = '{"item":"0","identifier":["<a_1>"],"title":"A lamp"}\n'
    (bundle / "catalog/items.jsonl").write_text(titled)

    def told() -> str:
        (bundle / MANIFEST).write_text(json.dumps(content))
        with pytest.raises(BundleError) as refused:
            Bundle.open(bundle)
        return str(refused.value)

    start, end = "specbeam export --target TARGET --catalog CATALOG --items ITEMS", f"--output {bundle} --overwrite"
    rest = "--scoring constrained --max-top-k 7 --precision fp16"
    prompt = "--prompt 'Bought: {history}' --separator ', ' --history-length 4"
    assert told().endswith(f"{start} {prompt} {rest} {end}")
    del content["prompt_options"]  # as older ones: the text that the prompt was compiled from is not known
    content["prompt"] |= {"separator": ", ", "suffix_ids": [3]}
    assert told().endswith(f"{start} --prompt PROMPT --separator ', ' --history-length 4 {rest} {end}")
    content["prompt"] = "elsewhere"  # what cannot be read is not asked
    assert told().endswith(f"specbeam export --target TARGET --catalog CATALOG {end}")
