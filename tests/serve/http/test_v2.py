"""The Open Inference Protocol v2: histories and prompts as tensors, JSON and binary."""

import json
from struct import pack, unpack_from
from typing import Any

import numpy as np
import pytest

from http_cases import MAX_K, Served, served, shop
from specbeam.runtime import Recommendation, Verification
from specbeam.runtime.search.filters import ItemFilter
from specbeam.serve.protocol.lists import NO_SCORE

HISTORIES = [["i3", "i14", "i15"], ["i9"]]
ITEMS = {"name": "items", "datatype": "BYTES", "shape": [2, 3], "data": ["i3", "i14", "i15", "i9", "", ""]}
INFER = "/v2/models/shop/infer"
HEADER = "Inference-Header-Content-Length"


def infer(it: Served, *inputs: Any, path: str = INFER, status: int = 200, **more: Any) -> Any:
    answer = it.client.post(path, json={"inputs": list(inputs), **more})
    assert answer.status_code == status, answer.text
    return answer.json()


def tensors(told: Any) -> dict[str, Any]:
    kinds = {"BYTES": object, "INT64": np.int64, "FP32": np.float32}
    return {o["name"]: np.array(o["data"], kinds[o["datatype"]]).reshape(o["shape"]) for o in told["outputs"]}


def check(found: dict[str, Any], expected: list[Recommendation]) -> None:
    catalog = shop().catalog
    for row, one in enumerate(expected):
        items = [entry.item for entry in one.items]
        blank = [""] * (found["items"].shape[1] - len(items))
        assert found["items"][row].tolist() == items + blank
        assert found["titles"][row].tolist() == [""] * len(items) + blank
        assert found["positions"][row].tolist() == [catalog.position[i] for i in items] + [-1] * len(blank)
        scores = [entry.score for entry in one.items] + [NO_SCORE] * len(blank)
        np.testing.assert_allclose(found["scores"][row], scores, atol=1e-4, rtol=1e-6)


def test_the_server_and_its_model_tell_what_they_are() -> None:
    with served() as it:
        assert it.client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
        for path in ("/v2/models/shop", "/v2/models/shop/versions/7"):
            told = it.client.get(path).json()
            assert (told["name"], told["versions"], told["platform"]) == ("shop", ["7"], "specbeam")
            assert [each["name"] for each in told["inputs"]] == ["items", "tokens", "lengths", "users", "k"]
            assert [each["name"] for each in told["outputs"]] == ["items", "scores", "positions", "titles"]
            assert it.client.get(f"{path}/ready").json() == {"name": "shop", "ready": True}


@pytest.mark.parametrize("nested", [False, True])
def test_histories_are_ranked_as_by_the_recommender(nested: bool) -> None:
    data = [["i3", "i14", "i15"], ["i9", "", ""]] if nested else ITEMS["data"]
    with served() as it:
        told = infer(it, ITEMS | {"data": data}, id="7", parameters={"k": 6}, path="/v2/models/shop/versions/7/infer")
        assert (told["id"], told["model_name"], told["model_version"]) == ("7", "shop", "7")
        assert told["parameters"] == {"catalog_version": "9"}
        check(tensors(told), shop().recommend(HISTORIES, 6))
        k = {"name": "k", "datatype": "INT64", "shape": [1], "data": [4]}
        wanted = [{"name": "positions"}, {"name": "items"}]
        assert [(o["name"], o["shape"]) for o in infer(it, ITEMS, k, outputs=wanted)["outputs"]] == [
            ("positions", [2, 4]), ("items", [2, 4])
        ]  # fmt: skip


def test_parameters_are_the_wishes_of_all_rows() -> None:
    allow = [f"i{i}" for i in range(12)]
    asked = {"k": 9, "allow": json.dumps(allow), "deny": '["i4"]', "exclude_history": True}
    sampled = asked | {"mode": "sampled", "seed": 5, "temperature": 0.7, "timeout": 9_000_000, "sequence_id": 0}
    users = {"name": "users", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
    rule = ItemFilter(allow, ["i4"])
    with served() as it:
        found = tensors(infer(it, ITEMS, parameters=asked))
        check(found, shop().recommend(HISTORIES, 9, item_filter=rule, exclude_history=True))
        own = shop(verification=Verification("sampled", temperature=0.7, seed=5))
        for more, names in (((), None), ((users,), ["a", "b"])):
            found = tensors(infer(it, ITEMS, *more, parameters=sampled))
            check(found, own.recommend(HISTORIES, 9, users=names, item_filter=rule, exclude_history=True))
        few = tensors(infer(it, ITEMS, parameters={"k": 4, "allow": '["i1", "i2"]'}))
        check(few, shop().recommend(HISTORIES, 4, item_filter=ItemFilter(["i1", "i2"])))
        assert (few["items"][:, 2:] == "").all()


def prompts() -> tuple[dict[str, Any], dict[str, Any]]:
    own = shop()
    encoded = [own.encode(history).prompt.tolist() for history in HISTORIES]
    longest = max(map(len, encoded))
    padded = [row + [0] * (longest - len(row)) for row in encoded]
    tokens = {"name": "tokens", "datatype": "INT64", "shape": [2, longest], "data": padded}
    return tokens, {"name": "lengths", "datatype": "INT64", "shape": [2], "data": [len(row) for row in encoded]}


def test_prompts_are_ranked_as_the_histories_they_are_of() -> None:
    with served() as it:
        check(tensors(infer(it, *prompts(), parameters={"k": 6})), shop().recommend(HISTORIES, 6))


def texts(raw: bytes) -> list[str]:
    found, start = [], 0
    while start < len(raw):
        (size,) = unpack_from("<I", raw, start)
        found.append(raw[start + 4 : start + 4 + size].decode())
        start += 4 + size
    return found


def test_tensors_go_both_ways_as_bytes() -> None:
    raw = b"".join(pack("<I", len(text)) + text.encode() for text in ITEMS["data"])
    k = np.array([5], "<i8").tobytes()
    head = json.dumps({
        "inputs": [
            {key: ITEMS[key] for key in ("name", "datatype", "shape")} | {"parameters": {"binary_data_size": len(raw)}},
            {"name": "k", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": len(k)}},
        ],
        "outputs": [{"name": "items", "parameters": {"binary_data": True}}, {"name": "titles"},
                    {"name": "scores", "parameters": {"binary_data": True}},
                    {"name": "positions", "parameters": {"binary_data": True}}],
    }).encode()  # fmt: skip
    with served() as it:
        answer = it.client.post(INFER, content=head + raw + k, headers={HEADER: str(len(head))})
        assert answer.status_code == 200, answer.text
        size = int(answer.headers[HEADER])
        told, rest = json.loads(answer.content[:size]), answer.content[size:]
        found: dict[str, Any] = {}
        for output in told["outputs"]:
            if "data" in output:
                found[output["name"]] = np.array(output["data"], object).reshape(output["shape"])
                continue
            part, rest = rest[: (n := output["parameters"]["binary_data_size"])], rest[n:]
            kind = {"INT64": "<i8", "FP32": "<f4"}.get(output["datatype"])
            values = np.frombuffer(part, kind) if kind else np.array(texts(part), object)
            found[output["name"]] = values.reshape(output["shape"])
        assert not rest
        check(found, shop().recommend(HISTORIES, 5))
        by_default = json.loads(head) | {"parameters": {"binary_data_output": True}}
        del by_default["outputs"]
        head = json.dumps(by_default).encode()
        answer = it.client.post(INFER, content=head + raw + k, headers={HEADER: str(len(head))})
        told = json.loads(answer.content[: int(answer.headers[HEADER])])
        assert all("binary_data_size" in output["parameters"] for output in told["outputs"])


TOKENS, LENGTHS = prompts()
K = {"name": "k", "datatype": "INT64", "shape": [1], "data": [3]}
BAD: list[tuple[list[Any], dict[str, Any], str | None]] = [
    ([], {}, "inputs"),
    ([K], {}, "inputs"),
    ([ITEMS, TOKENS, LENGTHS], {}, "inputs"),
    ([TOKENS], {}, "inputs"),
    ([ITEMS, ITEMS], {}, "inputs.items"),
    ([ITEMS | {"name": "other"}], {}, "inputs.other"),
    ([ITEMS | {"datatype": "INT64"}], {}, "inputs.items"),
    ([ITEMS | {"datatype": "FP64"}], {}, "inputs.items"),
    ([ITEMS | {"shape": [6]}], {}, "inputs.items"),
    ([ITEMS | {"shape": [2, 4]}], {}, "inputs.items"),
    ([ITEMS | {"shape": [2**31 - 1, 2**31 - 1]}], {}, "inputs.items"),
    ([ITEMS | {"shape": [-1, 6]}], {}, "inputs[0].shape[0]"),
    ([ITEMS | {"shape": [0, 3], "data": []}], {}, "inputs"),
    ([ITEMS | {"shape": [100, 1], "data": ["i3"] * 100}], {}, "inputs"),
    ([ITEMS | {"data": None}], {}, "inputs.items"),
    ([ITEMS | {"data": [1] * 6}], {}, "inputs.items"),
    ([ITEMS | {"data": ["i3", "i3", "i3", "", "", ""]}], {}, "inputs.items[1]"),
    ([ITEMS | {"data": ["i3", "i3", "i3", "gone", "", ""]}], {}, "inputs.items[1]"),
    ([ITEMS, K | {"data": [0]}], {}, "parameters.k"),
    ([ITEMS, K | {"data": [2**63]}], {}, "inputs.k"),
    ([ITEMS, K | {"data": [MAX_K + 1]}], {}, "k"),
    ([ITEMS, K | {"data": [True]}], {}, "inputs.k"),
    ([ITEMS, K | {"shape": [2], "data": [3, 3]}], {}, "inputs.k"),
    ([ITEMS, K], {"k": 3}, "inputs.k"),
    ([ITEMS], {"k": "3"}, "parameters.k"),
    ([ITEMS], {"colour": "red"}, "parameters.colour"),
    ([ITEMS], {"allow": "i3"}, "parameters.allow"),
    ([ITEMS], {"deny": "[[]]"}, "parameters.deny"),
    ([ITEMS], {"timeout": -1}, "parameters.timeout"),
    ([ITEMS], {"seed": 3}, "seed"),
    ([ITEMS, {"name": "users", "datatype": "BYTES", "shape": [1], "data": ["a"]}], {}, "inputs.users"),
    ([TOKENS, LENGTHS | {"data": [0, 1]}], {}, "inputs.tokens"),
    ([TOKENS, LENGTHS | {"data": [100, 1]}], {}, "inputs.tokens"),
    ([TOKENS, LENGTHS | {"shape": [1], "data": [1]}], {}, "inputs.tokens"),
    ([TOKENS | {"data": [[-1] * 10] * 2}, LENGTHS], {}, "inputs.tokens"),
    ([TOKENS | {"data": [[10**12] * 10] * 2}, LENGTHS], {}, "inputs.tokens"),
    ([TOKENS, LENGTHS], {"seed": 3}, "parameters.seed"),
    ([TOKENS, LENGTHS], {"k": MAX_K + 1}, "k"),
]


def test_mistakes_are_told_by_their_fields() -> None:
    with served() as it:
        for inputs, parameters, field in BAD:
            told = infer(it, *inputs, parameters=parameters, status=400)
            assert (told["code"], told.get("field")) == ("invalid", field), (inputs, parameters, told)
            assert isinstance(told["error"], str)
        assert infer(it, ITEMS, outputs=[{"name": "nothing"}], status=400)["field"] == "outputs"


@pytest.mark.parametrize("length", ["x", "-1", "99999", "1" * 30, "\u0661", "3"])
def test_a_header_that_does_not_fit_is_refused(length: str) -> None:
    with served() as it:
        answer = it.client.post(INFER, json={"inputs": [ITEMS]}, headers={HEADER: length.encode()})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


@pytest.mark.parametrize(
    "raw", [b"\x01", pack("<I", 5) + b"i3", pack("<I", 2**32 - 1), pack("<I", 2) + b"\xff\xfe", pack("<I", 2) + b"i3x"]
)
def test_bytes_that_are_no_texts_are_refused(raw: bytes) -> None:
    tensor = {"name": "items", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with served() as it:
        for body, field in ((head + raw, "inputs.items"), (head + raw[:-1], "inputs.items"), (head + raw + b"z", None)):
            answer = it.client.post(INFER, content=body, headers={HEADER: str(len(head))})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
            assert field in (None, answer.json()["field"])
