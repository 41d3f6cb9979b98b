"""Clients that ask a server about films as fast as it answers, and what they see."""

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_BOUNDARY = "film"


@dataclass(frozen=True)
class Load:
    """Answers of a server to a number of clients at once."""

    rate: float  # films a second
    p50: float  # seconds
    p95: float


@contextmanager
def running(command: list[str], port: int) -> Iterator[psutil.Process]:
    """A server that listens at `port` of this machine."""
    with subprocess.Popen(command) as server:
        try:
            while not _listens(port):
                if server.poll() is not None:
                    raise subprocess.CalledProcessError(server.returncode, command)
                time.sleep(0.1)
            yield psutil.Process(server.pid)
        finally:
            server.terminate()


def find_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str, field: str, films: list[bytes], clients: int, count: int) -> Load:
    """Send `count` films, a film a request, from so many clients, each of which waits for its answer."""
    requests = [_request(path, field, film) for film in films]
    times: list[float] = []
    began = time.perf_counter()
    asyncio.run(_ask(port, requests, clients, count, times))
    seconds = time.perf_counter() - began
    return Load(count / seconds, statistics.median(times), statistics.quantiles(times, n=20)[-1])


async def _ask(port: int, requests: list[bytes], clients: int, count: int, times: list[float]) -> None:
    left = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                sys.exit(f"error: the server said {head.splitlines()[0].decode()}")
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))


def _request(path: str, field: str, film: bytes) -> bytes:
    part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="film"\r\n\r\n'.encode()
    body = part + film + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def read_films(paths: list[str]) -> list[bytes]:
    """The contents of files."""
    return [Path(path).read_bytes() for path in paths]
