"""POST /v1/recommend: a request as a history line has it, or a list of them, answered as `specbeam infer` writes."""

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...runtime.types import RecommendedItem, RequestStats
from ..protocol.asking import Asked, ask, decoded
from ..protocol.refusals import Refused
from ..recommender import AsyncRecommender, Served
from .limits import read_body, while_connected
from .refusals import Failure, Fault, refusal
from .service import Service

PATH = "/v1/recommend"
JSON = "application/json"
_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One list, and what it came from."""

    items: tuple[RecommendedItem, ...]
    model: str
    model_version: str
    catalog_version: str
    id: str  # the request's
    user: str | None = None
    unknown_items: int = 0  # items of the history that the catalog lacks; they were left out
    shortened: bool = False  # the model's context did not hold the history
    available: int | None = None  # items that it may be recommended at all, where fewer than it asked for
    stats: RequestStats | None = None


def routes(service: Service) -> list[Route]:
    """What this file serves."""

    async def recommend(request: Request) -> Response:
        service.check_ready()
        model = service.models.named(request.query_params.get("model"))
        request.scope["model"] = model.edition.model
        body = await read_body(request, service.settings.limits)
        work = _each if body.lstrip()[:1] == b"[" else _one
        content = await while_connected(request, work(service, model, body, request.scope["request_id"]))
        return Response(content, media_type=JSON)

    return [Route(PATH, recommend, methods=["POST"])]


async def _one(service: Service, model: AsyncRecommender, body: bytes, request_id: str) -> bytes:
    return _encode(await _answer(service, model, decoded(body, Asked), request_id))


async def _each(service: Service, model: AsyncRecommender, body: bytes, request_id: str) -> bytes:
    """Entries fail alone: an error stands in its answer's place."""
    try:
        entries = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}.") from None
    most = service.settings.limits.entries
    if not 0 < len(entries) <= most:
        raise Refused(400, f"got a list of {len(entries)} requests; expected 1 to {most}.")

    async def entry(number: int, raw: msgspec.Raw) -> Answer | Failure:
        name = f"{request_id}-{number}"
        try:
            return await _answer(service, model, decoded(raw, Asked, f"[{number}]"), name)
        except Exception as error:
            refused = refusal(error)
            if refused.status == 500:
                service.log.failed(error, id=name)
            return Failure(Fault(refused.code, refused.message, refused.field, refused.retry_after), name)

    return _encode(await asyncio.gather(*(entry(number, raw) for number, raw in enumerate(entries))))


async def _answer(service: Service, model: AsyncRecommender, asked: Asked, request_id: str) -> Answer:
    served = await ask(model, service.settings, asked, asked.items, asked.user)
    return _told(served, asked, request_id)


def _told(served: Served, asked: Asked, request_id: str) -> Answer:
    found = served.recommendation
    return Answer(
        found.items, served.model, served.version, served.catalog, request_id,
        None if asked.user is None else str(asked.user), found.unknown_items, found.shortened, found.available,
        found.stats if asked.stats else None,
    )  # fmt: skip


def schemas() -> list[Any]:
    """What bodies are made of, for the OpenAPI document."""
    return [Asked, Answer, Failure]
