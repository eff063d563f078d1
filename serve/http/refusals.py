"""Refusals as HTTP answers."""

from math import ceil
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..protocol.refusals import Refused
from ..protocol.refusals import refusal as refusal_of


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request is not answered."""

    code: str
    message: str
    field: str | None = None
    retry_after: float | None = None  # seconds


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error in place of an answer."""

    error: Fault
    id: str | None = None  # the request's
    user: str | None = None  # of an entry of a list


class TensorFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The same as the Open Inference Protocol has it: the error is text."""

    error: str
    code: str
    field: str | None = None
    id: str | None = None


def refusal(error: BaseException) -> Refused:
    """What is answered in place of an error, the web framework's own included."""
    if isinstance(error, HTTPException):
        return Refused(error.status_code, _said_of(error), headers=dict(error.headers or {}))
    return refusal_of(error)


def response(refused: Refused, path: str, request_id: str) -> Response:
    """The answer; path: of the request, as protocols differ in how errors look."""
    fault = Fault(refused.code, refused.message, refused.field, refused.retry_after)
    body: Any = Failure(fault, request_id)
    if path == "/v2" or path.startswith("/v2/"):
        body = TensorFailure(fault.message, fault.code, fault.field, request_id)
    headers = dict(refused.headers)
    if refused.retry_after is not None:
        headers["Retry-After"] = str(max(ceil(refused.retry_after), 1))
    return Response(msgspec.json.encode(body), refused.status, headers, "application/json")


def _said_of(error: HTTPException) -> str:
    told = {404: "nothing is served at this path; see /openapi.json.", 405: "this path has no such method."}
    return told.get(error.status_code, error.detail)
