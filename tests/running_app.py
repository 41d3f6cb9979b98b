"""The server of `pulmo serve`, listening on loopback for the time of a test."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulmo.answering.champion import Place
from pulmo.answering.follow import Follower
from pulmo.answering.listening import Punctual, make_server
from pulmo.answering.server import make_app


@contextmanager
def serving(package: Path, seconds: float = 30, **options: Any) -> Iterator[tuple[str, int]]:
    """Yields host and port of a server that answers from a package; `seconds` limits what clients may take."""
    follower = Follower(lambda: Place(package, "small", "7"), seconds=0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(make_app(follower, **options), type("Limited", (Punctual,), {"seconds": seconds}))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def find_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
