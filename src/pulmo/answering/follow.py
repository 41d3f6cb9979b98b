"""The model that serves, exchanged while it serves: a better one takes over, a broken one changes nothing."""

import threading
from collections.abc import Callable

import numpy as np

from pulmo.answering.champion import Place
from pulmo.answering.predictor import Predictor
from pulmo.base.errors import UserError
from pulmo.base.process import tell
from pulmo.images.film import FittedFilm
from pulmo.package.info import CARD
from pulmo.package.storage import ONNX

SECONDS = 2.0  # between two looks for another model


class Follower:
    """The model that `find` names, looked for again every two seconds in a thread of its own."""

    def __init__(self, find: Callable[[], Place], seconds: float = SECONDS, bf16: bool = False) -> None:
        """`bf16` is that of `Predictor.load`. UserError where there is no model to begin with."""
        self._find = find
        self._seconds = seconds
        self._bf16 = bf16
        self._stopped = threading.Event()
        place = find()
        self._seen = _mark(place)
        self._predictor = _load(place, bf16)
        self.warning = ""  # one line on why the model is not the one that it should be; empty where it is

    def current(self) -> Predictor:
        """The predictor that answers now, and stays good until the request that took it ends."""
        return self._predictor

    def look(self) -> None:
        """Take the model that is named now, where it is another and answers."""
        name = "the named model"
        try:
            place = self._find()
            mark = _mark(place)
            if mark == self._seen:
                self.warning = ""
                return
            name = f"{place.name} {place.version}".strip()
            predictor = _load(place, self._bf16)
        except Exception as error:  # whatever is wrong with a new model, the old one goes on
            self._warn(name, error)
            return
        self._predictor, self._seen, self.warning = predictor, mark, ""
        tell(f"serves: {predictor.model.name}, version {predictor.model.version}")

    def start(self) -> None:
        """Begin to look for other models."""
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.look()

    def _warn(self, name: str, error: Exception) -> None:
        """Say it in full to the operator, once, and without the server's paths to everybody who asks."""
        model = self._predictor.model
        warning = f"{name} cannot be loaded, {model.name}, version {model.version}, goes on serving"
        if warning != self.warning:
            reason = error.message if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            tell(f"warning: {warning}: {reason}")
        self.warning = warning


def _mark(place: Place) -> object:
    """A value that differs where the place, or what lies there, does."""
    states = [(place.folder / name).stat() for name in (CARD, ONNX) if (place.folder / name).exists()]
    return place, [(state.st_mtime_ns, state.st_ino, state.st_size) for state in states]


def _load(place: Place, bf16: bool) -> Predictor:
    # one thread a batch: with more each batch is answered sooner, but as they wait for one another fewer films a second
    predictor = Predictor.load_folder(place.folder, place.name, place.version, threads=1, bf16=bf16)
    blank = np.zeros((predictor.info.size, predictor.info.size), np.uint8)
    predictor.score([FittedFilm(blank)])  # fails here, if at all
    return predictor
