"""A listener at work: one thread answers films in the order of their arrival, one a destination sends the replies."""

import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from pulmo.answering.dicom.header import draw_film
from pulmo.answering.dicom.reply import Reply, make_reply
from pulmo.answering.dicom.send import Destination, TurnedDown, Unreachable
from pulmo.answering.dicom.spool import Spool
from pulmo.answering.follow import Follower
from pulmo.answering.predictor import read_fitted
from pulmo.base.errors import UserError
from pulmo.base.process import tell
from pulmo.images.limits import MemoryShortage

LONGEST_WAIT = 60.0  # seconds between two tries of a destination that is down
_LOOK = 0.5  # seconds between two looks at the end of the work
_TRIES = 3  # of a film for which there was no memory
_PAUSE = 5.0  # seconds before another try


class Listener:
    """Answers what lies in a spool and sends the replies, until it is stopped."""

    def __init__(
        self,
        spool: Spool,
        source: Follower,
        destinations: Sequence[Destination],
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        self._spool, self._source, self._longest = spool, source, longest_wait
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._answer_all, daemon=True)]
        self._threads += [threading.Thread(target=self._send_all, args=(to,), daemon=True) for to in destinations]

    def start(self) -> None:
        """Begin with what a former run left, after a few seconds in which libraries are loaded."""
        self._warm_up()
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """End after the film and the replies at hand, or after so many seconds; the rest stays in the spool."""
        self._stopped.set()
        self._spool.wake()
        ends = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _answer_all(self) -> None:
        while not self._stopped.is_set():
            if film := self._spool.wait_film(_LOOK):
                self._answer(film)

    def _warm_up(self) -> None:
        """Make a reply to a drawn film, so that the first real one need not wait for what libraries load late."""
        try:
            self._reply(draw_film())
        except Exception:  # it would be told where it matters
            traceback.print_exc()

    def _answer(self, film: Path) -> None:
        number, began = int(film.stem), time.perf_counter()
        try:
            reply, outcome = self._reply(film.read_bytes())
            self._spool.put_replies(film, [content for content in (reply.report, reply.picture) if content])
        except OSError as error:  # a full disk, which somebody may clear
            tell(f"warning: film {number} waits: {error.strerror or error}")
            self._stopped.wait(_PAUSE)
            return
        except UserError as error:
            self._fail(film, error.message)
            return
        except Exception:  # a bug costs one film, which is kept, and not those after it
            traceback.print_exc()
            self._fail(film, "the program failed")
            return
        tell(f"film {number}: {outcome}, {time.perf_counter() - began:.2f} s")

    def _reply(self, content: bytes) -> tuple[Reply, str]:
        """The reply to a film, and the outcome in a few words."""
        predictor = self._source.current()
        for left in reversed(range(_TRIES)):
            try:
                fitted = read_fitted(content, predictor.info)
                break
            except MemoryShortage:
                if not left:
                    raise
                self._stopped.wait(_PAUSE)
            except UserError as error:
                return make_reply(predictor, content, None, None, error.message), f"not read: {error.message}"
        answer = predictor.answer([fitted])[0]
        outcome = "unsure" if answer.unsure and answer.label else answer.label or f"refused: {answer.refusal}"
        return make_reply(predictor, content, fitted, answer), outcome

    def _fail(self, film: Path, reason: str) -> None:
        tell(f"error: film {int(film.stem)}: {reason}; it is kept as {self._spool.set_aside(film)}")

    def _send_all(self, destination: Destination) -> None:
        pause, complaint = 0.0, ""
        while not self._stopped.wait(pause):
            path = self._spool.wait_reply(destination.queue, _LOOK)
            if path is None:
                destination.rest()
                continue
            try:
                destination.send(path.read_bytes())
                self._spool.remove(path)
            except TurnedDown as error:
                tell(f"error: {destination.name} turned {path.name} down ({error}): {self._spool.set_aside(path)}")
            except Exception as error:  # whatever it is, the reply is kept and tried again
                pause = min(2 * pause or 1.0, self._longest)
                reason = str(error) if isinstance(error, Unreachable) else f"{type(error).__name__}: {error}"
                if reason != complaint:
                    tell(f"warning: {destination.name} takes nothing ({reason}); replies wait for it")
                complaint = reason
                continue
            if complaint:
                tell(f"{destination.name} takes replies again")
            pause, complaint = 0.0, ""
        destination.rest()
