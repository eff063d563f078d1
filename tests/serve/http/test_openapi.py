"""The OpenAPI document: what it says is what is served."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from http_cases import served
from specbeam.serve.http.openapi import document
from specbeam.serve.protocol.asking import Asked


def resolved(name: str, components: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": components}})


def test_it_names_every_route_and_nothing_else() -> None:
    with served() as it:
        told = it.client.get("/openapi.json").json()
        assert told == json.loads(json.dumps(document()))
        routes = {
            (route.path, method)
            for route in it.client.app.routes if isinstance(route, Route)  # type: ignore[attr-defined]
            for method in route.methods or () if method != "HEAD"
        }  # fmt: skip
        listed = {
            (path, method.upper())
            for path, entry in told["paths"].items()
            for method in entry
            if method != "parameters"
        }
        assert listed == routes - {("/openapi.json", "GET")}


def test_every_reference_leads_somewhere() -> None:
    told = json.dumps(document())
    names = set(re.findall(r"#/components/schemas/([\w.]+)", told))
    assert names <= set(document()["components"]["schemas"])
    assert len(names) > 8


def test_answers_are_as_it_says() -> None:
    components = document()["components"]["schemas"]
    with served() as it:
        resolved("Answer", components).validate(it.ask({"items": ["i3"], "stats": True, "user": "u"}).json())
        resolved("Failure", components).validate(it.ask({"items": []}).json())
        resolved("TensorFailure", components).validate(it.client.get("/v2/models/none").json())
        tensor = {"name": "items", "datatype": "BYTES", "shape": [1, 1], "data": ["i3"]}
        answer = it.client.post("/v2/models/shop/infer", json={"inputs": [tensor]})
        resolved("InferResponse", components).validate(answer.json())


@pytest.mark.parametrize(
    ("body", "valid"),
    [({"items": ["a", 3]}, True), ({"items": []}, False), ({"items": ["a"], "k": 0}, False), ({}, False),
     ({"items": ["a"], "other": 1}, False), ({"items": ["a"], "mode": "best"}, False)],
)  # fmt: skip
def test_requests_are_as_it_says(body: Any, valid: bool) -> None:
    assert resolved(Asked.__name__, document()["components"]["schemas"]).is_valid(body) == valid
