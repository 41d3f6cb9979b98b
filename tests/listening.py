"""A listener within the test's own process, with a model that stays."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulmo import Predictor
from pulmo.answering.dicom.listener import Listener
from pulmo.answering.dicom.scp import start_scp
from pulmo.answering.dicom.send import parse_destination
from pulmo.answering.dicom.spool import Spool

ROOM = 2**30


class Source:
    """One model, for ever."""

    warning = ""

    def __init__(self, package: Path) -> None:
        self._predictor = Predictor.load_folder(package, "faster", "3", threads=1)

    def current(self) -> Predictor:
        return self._predictor

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


class Rig:
    def __init__(self, spool: Spool, server: Any) -> None:
        self.spool = spool
        self.port = server.server_address[1]

    def count_waiting(self) -> int:
        """Films that wait for their answer, and replies that wait for a destination."""
        places = [self.spool.folder / "inbox", *(self.spool.folder / "outbox").iterdir()]
        return sum(1 for place in places for file in place.glob("[0-9]*.dcm"))

    def is_idle(self) -> bool:
        return not self.count_waiting()


@contextmanager
def listening(
    source: Source, folder: Path, *to: str, limit: int = ROOM, callers: tuple[str, ...] = (), port: int = 0
) -> Iterator[Rig]:
    destinations = [parse_destination(text, "PULMO") for text in to]
    spool = Spool(folder, limit, [destination.queue for destination in destinations])
    listener = Listener(spool, source, destinations, longest_wait=0.2)
    server = start_scp(spool, ("127.0.0.1", port), "PULMO", callers)
    listener.start()
    try:
        yield Rig(spool, server)
    finally:
        server.shutdown()
        listener.stop()
        spool.close()
