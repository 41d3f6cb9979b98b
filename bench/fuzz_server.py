"""Broken requests by the thousand against a server that listens: it lives, says 4xx at once, and keeps its memory.

Run from the project's root: `python bench/fuzz_server.py [SECONDS] [SEED] [PACKAGE]`. A request that is answered by
another status, late, or not at all is written to the current folder as request-<hash>.
"""

import base64
import hashlib
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from _clients import find_port, running

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from film_files import GRAY, encode

from pulmo.base import paths

LATEST = 10.0  # seconds
PATIENCE = 2.0  # seconds after which a request that has no answer yet is given up
MEMORY = 200  # MB that the server may grow by
FILM = encode(GRAY[::4, ::4], "PNG")
BOUNDARY = b"----film"
TOKENS = [
    b"\r\n",
    b"--" + BOUNDARY,
    b"\0",
    b'"',
    b"{",
    b"[",
    b"]",
    b"9" * 30,
    b"-1",
    b"\xff\xfe",
    b":",
    b"film",
    b"e999",
]
INFER = "/v2/models/pulmo/infer"


def main() -> None:
    """Send requests until the time is over, and say what came of them."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    package = sys.argv[3] if len(sys.argv) > 3 else str(paths.PACKAGE)
    port, dice, statuses, wrong = find_port(), random.Random(seed), Counter[str](), 0
    command = [sys.executable, "-c", "from pulmo.cli import main; main()", "serve", "--port", str(port)]
    with running([*command, "--package", package], port) as server:
        for _ in range(20):  # every decoder once
            send(port, multipart(dice))
        before, end = server.memory_info().rss, time.monotonic() + seconds
        while time.monotonic() < end:
            request = dice.choice(KINDS)(dice)
            began = time.monotonic()
            status = send(port, request)
            statuses[status] += 1
            if status[:1] == "5" or status == "silent" or time.monotonic() - began > LATEST:
                wrong += 1
                name = f"request-{hashlib.sha256(request).hexdigest()[:12]}"
                Path(name).write_bytes(request)
                print(f"{status} after {time.monotonic() - began:.1f} s: {name}", flush=True)
        grown = (server.memory_info().rss - before) / 2**20
        print(f"{sum(statuses.values())} requests, {dict(statuses.most_common())}, memory {grown:+.0f} MB")
        if wrong or grown > MEMORY or not lives(port):
            sys.exit(1)


def send(port: int, request: bytes) -> str:
    """The status of the answer; `closed` where the connection ended without one, `waits` where the server wants more of
    the request, `silent` where nothing can be asked of it any more."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(request)
            head = connection.recv(64)
            return head[9:12].decode("latin-1") if head else "closed"
        except TimeoutError:
            pass
        except OSError:
            return "closed"
    return "waits" if lives(port) else "silent"


def lives(port: int) -> bool:
    """True where the server answers a good request in time."""
    with socket.create_connection(("127.0.0.1", port), timeout=LATEST) as connection:
        try:
            connection.sendall(whole("GET", "/healthz"))
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def whole(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """A request as it should be."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def multipart(dice: random.Random) -> bytes:
    """Films as a form, damaged inside."""
    parts = b"".join(
        b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="films"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + spoil(FILM, dice, 0.3) + b"\r\n"
        for _ in range(dice.randrange(4))
    )
    body = spoil(parts + b"--" + BOUNDARY + b"--\r\n", dice)
    query = dice.choice(["", "?heatmap=1&film=1", "?anyway=1", "?heatmap=%ff", "?film=2"])
    return whole(
        "POST", f"/v1/predict{query}", body, f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}"
    )


def inference(dice: random.Random) -> bytes:
    """A request of the Open Inference Protocol in JSON, with values of the wrong kind and damaged text."""
    tensor = {"name": "film", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FILM).decode()]}
    content: dict[str, object] = {
        "id": "1",
        "inputs": [tensor],
        "parameters": {"anyway": True},
        "outputs": [{"name": "label"}],
    }
    target = dice.choice([tensor, content])
    target[dice.choice(list(target))] = dice.choice([None, 3, -1, 1e400, "x", [], {}, [[]], [None], [{}], {"name": []}])
    text = json.dumps(content).encode()
    return whole("POST", INFER, spoil(text, dice) if dice.random() < 0.5 else text)


def tensors(dice: random.Random) -> bytes:
    """The same with binary tensors, whose lengths lie."""
    tail = b"".join(
        dice.choice([len(FILM), 0, 3, 2**32 - 1]).to_bytes(4, "little") + FILM for _ in range(dice.randrange(1, 4))
    )
    size = dice.choice([len(tail), len(tail) - 1, 0, -1, 10**20, "x"])
    tensor = {
        "name": "film",
        "datatype": "BYTES",
        "shape": [dice.randrange(4)],
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": dice.random() < 0.5}}).encode()
    length = dice.choice([len(head), len(head), len(head) - 1, 0, -3, 10**20, "x", "٣"])
    content = spoil(head + tail, dice) if dice.random() < 0.5 else head + tail
    request = whole("POST", INFER, content, "Inference-Header-Content-Length: LENGTH")
    return request.replace(b"LENGTH", str(length).encode(), 1)


def protocol(dice: random.Random) -> bytes:
    """A request whose head is damaged too: methods, paths, lengths, chunks."""
    request = dice.choice([multipart, inference, tensors])(dice)
    if dice.random() < 0.3:
        request = request.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ", 1)
    return spoil(request[:400], dice) + request[400:]


def spoil(content: bytes, dice: random.Random, share: float = 0.8) -> bytes:
    """Some bytes changed, cut, repeated or put in."""
    if dice.random() > share:
        return content
    changed = bytearray(content)
    for _ in range(dice.randrange(1, 5)):
        place, length = dice.randrange(len(changed) + 1), dice.randrange(40)
        new = dice.choice([dice.randbytes(length), dice.choice(TOKENS), b"", bytes(changed[place : place + length])])
        changed[place : place + dice.choice([0, length])] = new
    return bytes(changed)


KINDS: list[Callable[[random.Random], bytes]] = [multipart, inference, tensors, protocol]

if __name__ == "__main__":
    main()
