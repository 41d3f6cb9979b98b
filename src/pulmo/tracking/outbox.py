"""What a stage writes to the store: in order, and kept until it is taken, so that no store holds up a training."""

import os
import time
from collections import deque
from collections.abc import Callable

from pulmo.base.errors import UserError
from pulmo.base.process import tell
from pulmo.tracking.store import checked, is_file, reach

_PATIENCE = 10  # times as long as a vain attempt took, until the next: a store that hangs costs a tenth of the time


class Outbox:
    """Writes to the store at `uri`. One that fails waits, with all that come after it, for the store to take it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._waiting: deque[Callable[[], None]] = deque()
        self._next_attempt = 0.0
        self._failed = False
        # MLflow's own numbers have an epoch wait for minutes.
        for key, value in (("MLFLOW_HTTP_REQUEST_TIMEOUT", "30"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")):
            os.environ.setdefault(key, value)

    def put(self, write: Callable[[], None]) -> None:
        """Write now, or, where the store failed a moment ago, later."""
        self._waiting.append(write)
        if time.monotonic() >= self._next_attempt:
            self._send()

    def finish(self, name: str, again: bool = True) -> None:
        """Write what waits (with `again`), for the last time, and say so where the run `name` stays incomplete."""
        if again and self._waiting:
            self._send()
        if self._waiting:
            tell(
                f"warning: the MLflow run {name} is not complete; `pulmo sync` completes it once the store can be used"
            )

    def _send(self) -> None:
        began = time.monotonic()
        try:
            with checked(self._uri):
                if self._failed and not is_file(self._uri):
                    reach(self._uri)  # at once, where MLflow would ask several times
                while self._waiting:
                    self._waiting[0]()
                    self._waiting.popleft()
        except UserError as error:
            if not self._failed:
                tell(f"warning: {error.message}; this stage goes on without it")
            self._failed = True
            self._next_attempt = time.monotonic() + _PATIENCE * (time.monotonic() - began)
            return
        if self._failed:
            tell("warning: the MLflow store can be used again, and has all that it missed")
        self._failed = False
