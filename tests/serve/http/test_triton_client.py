"""NVIDIA's own client, unchanged, gets the lists that Python gets: in an environment of its own, as it wants other
versions of packages than ours."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from http_process import Running, serving
from specbeam.runtime import EngineChoice, Recommender, Verification
from specbeam.runtime.search.filters import ItemFilter
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
CLIENT = Path(__file__).parents[2] / "support" / "triton_client_program.py"
HOW: dict[str, dict[str, Any]] = {
    "strict": {"k": 6},
    "sampled": {"k": 6, "mode": "sampled", "seed": 7, "temperature": 0.8},
    "filtered": {"k": 9, "allow": [str(i) for i in range(25)], "deny": ["3", "4"], "exclude_history": True},
}


@pytest.fixture(scope="module")
def running(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("serve"), f"tiny={tiny.bundle}", "--threads", 1) as server:
        yield server


def test_its_lists_are_those_of_python(triton_python: Path, running: Running, tiny: Tiny, tmp_path: Path) -> None:
    ids, own = tiny.item_ids, Recommender.open(tiny.bundle, engine=EngineChoice(threads=1))
    histories = [[ids[(7 * row + i) % 40] for i in range(1 + row % 6)] for row in range(48)]
    users = [f"u{row}" for row in range(48)]
    prompts = [own.encode(history).prompt.tolist() for history in histories]
    asked = tmp_path / "asked.json"
    content = {"url": f"{running.host}:{running.port}", "histories": histories, "users": users, "prompts": prompts}
    asked.write_text(json.dumps(content | {"how": HOW}))
    done = subprocess.run([str(triton_python), str(CLIENT), str(asked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for name, how in HOW.items():
        verification = Verification(**{key: how[key] for key in ("mode", "seed", "temperature") if key in how})
        rule = ItemFilter(how["allow"], how["deny"]) if "allow" in how else None
        expected = own.verifying(verification).recommend(
            histories, how["k"], users=users, item_filter=rule, exclude_history="exclude_history" in how
        )
        for way in ("binary", "json"):
            check(told[name][way], expected)
    for answer in told["prompts"]:
        check(answer, own.recommend(histories, 6))
    assert told["error"]["message"].endswith("Expected item ids that are keys of the catalog.")
    assert told["error"]["status"] == "400"


def check(found: dict[str, Any], expected: Any) -> None:
    for items, titles, scores, one in zip(found["items"], found["titles"], found["scores"], expected, strict=True):
        listed = [(entry.item, entry.title or "") for entry in one.items]
        size = len(listed)
        assert list(zip(items, titles, strict=True)) == listed + [("", "")] * (len(items) - size)
        assert scores[:size] == pytest.approx([entry.score for entry in one.items], abs=1e-4)
