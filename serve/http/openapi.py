"""/openapi.json, made of the same structs that bodies are read by."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ... import __version__
from ..protocol.asking import Asked
from ..protocol.refusals import CODES
from .refusals import Failure, TensorFailure
from .v1 import PATH, Answer
from .v2 import EXTENSIONS, InferRequest, InferResponse

REF = "#/components/schemas/{name}"
JSON = "application/json"
BODIES = [Asked, Answer, Failure, TensorFailure, InferRequest, InferResponse]


def routes() -> list[Route]:
    """What this file serves."""
    content = msgspec.json.encode(document())

    async def openapi(request: Request) -> Response:
        return Response(content, media_type=JSON)

    return [Route("/openapi.json", openapi)]


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    _, components = msgspec.json.schema_components(BODIES, ref_template=REF)
    name, version = (_parameter(each, "path", required=True) for each in ("name", "version"))
    paths: dict[str, Any] = {
        PATH: {"post": _recommend()},
        "/v2": {"get": _operation("The server", _of({"type": "object"}))},
        "/v2/health/live": {"get": _operation("Whether it lives", _of({"type": "object"}), open_=True)},
        "/v2/health/ready": {"get": _operation("Whether it serves", _of({"type": "object"}), (503,), open_=True)},
        "/metrics": {"get": _operation("For Prometheus", {"text/plain": {"schema": {"type": "string"}}})},
    }
    for path, parameters in (("/v2/models/{name}", [name]), ("/v2/models/{name}/versions/{version}", [name, version])):
        facts = _operation("The model", _of({"type": "object"}), (404, 503), v2=True)
        paths[path] = {"parameters": parameters, "get": facts}
        paths[f"{path}/ready"] = {"parameters": parameters, "get": facts}
        paths[f"{path}/infer"] = {"parameters": parameters, "post": _infer()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "SpecBeam", "version": __version__, "description": "Top-K generative recommendation."},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


REFUSALS = (400, 404, 408, 413, 415, 429, 499, 500, 503, 504)


def _recommend() -> dict[str, Any]:
    one, many = _ref(Asked), {"type": "array", "items": _ref(Asked), "minItems": 1}
    entry = {"anyOf": [_ref(Answer), _ref(Failure)]}
    operation = _operation("A list, or one for each of several requests", _of(
        {"anyOf": [_ref(Answer), {"type": "array", "items": entry}]}
    ), REFUSALS)  # fmt: skip
    body = {"required": True, "content": _of({"anyOf": [one, many]})}
    return operation | {"parameters": [_parameter("model", "query")], "requestBody": body}


def _infer() -> dict[str, Any]:
    told = f"Lists of histories or prompts, by the Open Inference Protocol v2 with {', '.join(EXTENSIONS)}"
    operation = _operation(told, _of(_ref(InferResponse)), REFUSALS, v2=True)
    return operation | {"requestBody": {"required": True, "content": _of(_ref(InferRequest))}}


def _operation(
    summary: str, content: dict[str, Any], refusals: tuple[int, ...] = (), *, v2: bool = False, open_: bool = False
) -> dict[str, Any]:
    failure = _of(_ref(TensorFailure if v2 else Failure))
    codes = refusals if open_ else (401, *refusals)
    failures = {str(code): {"description": CODES[code], "content": failure} for code in sorted(codes)}
    if open_:
        failures = {code: {"description": "not yet", "content": content} for code in failures}
    return {"summary": summary, "responses": {"200": {"description": "done", "content": content}} | failures}


def _parameter(name: str, where: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": {"type": "string", "minLength": 1}}


def _of(schema: dict[str, Any]) -> dict[str, Any]:
    return {JSON: {"schema": schema}}


def _ref(kind: type) -> dict[str, Any]:
    return {"$ref": REF.format(name=kind.__name__)}
