"""The HTTP server that listens: clients that send or read too slowly lose their connection."""

import asyncio
import logging
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD = 16_384  # bytes of a request's headers
_GRACE = 10  # seconds that requests under way have to end, once the server is told to stop


class Punctual(H11Protocol):
    """HTTP/1.1 with a time limit on the head of a request, and on a client that does not read its answer."""

    seconds = 30.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Head and body of an answer are two writes, and without this the second waits 40 ms for the client's receipt.
        # asyncio sets it only where a listening socket names its protocol.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = self.loop.call_later(self.seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            _cancel(self._head)
            self._head = None
        elif self._head is None and (self.cycle is None or self.cycle.response_complete):
            self._head = self.loop.call_later(self.seconds, self.transport.abort)  # of another request

    def send_400_response(self, msg: str) -> None:
        if self.cycle and not self.cycle.response_complete:  # the request whose end is broken has no other answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer had begun
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._reading)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._reading)
        super().connection_lost(exc)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer:
        timer.cancel()


def make_server(app: Any, protocol: type[H11Protocol] = Punctual) -> uvicorn.Server:
    """A server of an ASGI application; `run([socket])` serves until it is told to stop.

    What clients send wrongly is told to them, not logged: it would fill the operator's disk.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_HEAD,
            timeout_graceful_shutdown=_GRACE,
        )
    )
