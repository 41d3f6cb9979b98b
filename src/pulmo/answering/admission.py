"""Checks that a request must pass before its content is read, and headers of every response that protect browsers."""

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBLEM = "application/problem+json"
OPEN = ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")  # need no token: they say nothing of films
_MB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients may ask for; the memory that uploads take is at most `all_bytes`."""

    films: int = 100  # a request
    request_bytes: int = 64 * _MB
    all_bytes: int = 512 * _MB  # of all requests under way
    requests: int = 64  # under way at once
    seconds: float = 30  # for a request to arrive


def to_problem(status: int, detail: str) -> dict[str, Any]:
    """A problem as RFC 9457 writes it."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response that tells a client of a problem."""
    return JSONResponse(to_problem(status, detail), status, headers, PROBLEM)


def refuse(_: object, refusal: Any) -> JSONResponse:
    """The response to a request that an HTTPException ended."""
    return problem_response(refusal.status_code, refusal.detail, refusal.headers)


def broken_off(*_: Any) -> JSONResponse:
    """The response, which nobody waits for, to a request that did not arrive whole."""
    return problem_response(400, "the request broke off")


class Admission:
    """ASGI middleware: Host, Origin, token, sizes, times, and headers that keep browsers safe."""

    def __init__(
        self, app: ASGIApp, token: str, names: frozenset[str], limits: Limits, headers: Mapping[str, str]
    ) -> None:
        """`names`: host names, beside localhost, that the server goes by. `headers`: of every response."""
        self.app, self.token, self.limits = app, token, limits
        self.names = {"localhost", *(name.lower() for name in names)}
        self.headers = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
        self.requests = self.bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            self._check_sender(scope, headers)
            size = self._check_size(headers) if scope["method"] == "POST" else 0
        except HTTPException as refusal:
            response = refuse(None, refusal)
            response.headers["connection"] = "close"
            await response(scope, receive, answer)
            return
        self.requests, self.bytes = self.requests + 1, self.bytes + size
        try:
            await self.app(scope, self._bounded(receive), answer)
        finally:
            self.requests, self.bytes = self.requests - 1, self.bytes - size

    def _check_sender(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            raise HTTPException(
                421, "this server does not go by that name; `--name` of serve, `--at` of listen gives it one"
            )
        if origin is not None and origin.partition("://")[2] != host:
            raise HTTPException(403, "pages of other servers may not ask")
        if self.token and scope["path"] not in OPEN:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self.token.encode()):
                challenge = {"www-authenticate": "Bearer"}
                raise HTTPException(401, "a token is needed, as `Authorization: Bearer TOKEN`", challenge)

    def _is_own(self, host: str) -> bool:
        # A page of another server reaches this one under a name of its own, never under an address
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _check_size(self, headers: Mapping[str, str]) -> int:
        """Bytes that the request may take, which are kept free for it."""
        length = headers.get("content-length", str(self.limits.request_bytes))
        if not length.isascii() or not length.isdigit():
            raise HTTPException(400, "Content-Length is no number")
        if int(length) > self.limits.request_bytes:
            raise self._too_large()
        if self.requests >= self.limits.requests or self.bytes + int(length) > self.limits.all_bytes:
            raise HTTPException(429, "too many requests are under way, try again in a second", {"retry-after": "1"})
        return int(length)

    def _bounded(self, receive: Receive) -> Receive:
        size, ends, whole = 0, time.monotonic() + self.limits.seconds, False

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, ends - time.monotonic()))
            except TimeoutError:
                raise HTTPException(408, f"the request did not arrive in {self.limits.seconds:g} s") from None
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > self.limits.request_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"a request may have {self.limits.request_bytes / _MB:g} MB; send fewer films at a time"
        )
