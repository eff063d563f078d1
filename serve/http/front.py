"""What every HTTP request passes first and last: its id, the token, the limit of requests at once, metrics, the log."""

import re
import secrets
from time import perf_counter
from typing import final
from urllib.parse import urlsplit

from h11 import LocalProtocolError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..protocol.refusals import Refused
from .refusals import refusal, response
from .service import Service

REQUEST_ID = "x-request-id"
USABLE_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
HEALTH = frozenset({"/v2/health/live", "/v2/health/ready"})  # open, as orchestrators send no token


@final
class Front:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, service: Service, open_paths: frozenset[str] = frozenset()) -> None:
        """open_paths: served without the token, beside those of health."""
        self._app, self._service, self._open = app, service, HEALTH | open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, start, status = Headers(scope=scope), perf_counter(), 0
        if not scope["path"].startswith(
            "/"
        ):  # a target with scheme and host, which a server must take (RFC 9112, 3.2.2)
            scope["path"] = urlsplit(scope["path"]).path or "/"
        given = headers.get(REQUEST_ID, "")
        request_id = scope["request_id"] = given if USABLE_ID.fullmatch(given) else secrets.token_hex(8)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID.encode(), request_id.encode())]
            try:
                await send(message)
            except LocalProtocolError:  # what came behind the request was no HTTP: uvicorn has told, and hung up
                status = 499

        service = self._service
        service.in_flight += 1
        service.metrics.in_flight.set(service.in_flight)
        try:
            self._admit(scope["path"], headers)
            await self._app(scope, receive, sending)
        except Exception as error:
            refused = refusal(error)
            if refused.status == 500:
                service.log.failed(error, id=request_id)
            if status:
                raise  # half an answer is out: the connection is closed
            await response(refused, scope["path"], request_id)(scope, receive, sending)
        finally:
            service.in_flight -= 1
            service.metrics.in_flight.set(service.in_flight)
            self._account(scope, status, perf_counter() - start)

    def _admit(self, path: str, headers: Headers) -> None:
        if (
            "transfer-encoding" in headers and "content-length" in headers
        ):  # what is behind one end is another's request
            raise Refused(
                400, "got Transfer-Encoding and Content-Length; expected one.", headers={"Connection": "close"}
            )
        if path in HEALTH:
            return
        most = self._service.settings.limits.concurrency
        if self._service.in_flight > most:
            raise Refused(429, f"{most} requests are being answered, which is as many as may.", retry_after=1.0)
        if path not in self._open:
            self._service.check_token(headers.get("authorization"))

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._service.metrics.answered(route, status, seconds)
        self._service.log.write(
            "request", id=scope["request_id"], method=scope["method"][:16], route=route, status=status,
            ms=round(seconds * 1000, 3), model=scope.get("model"),
        )  # fmt: skip
