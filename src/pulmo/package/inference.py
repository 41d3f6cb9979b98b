"""The network of a package: log-odds of films, and the map that speaks for them, without PyTorch."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulmo.base.errors import UserError
from pulmo.package.info import TTA_VIEWS
from pulmo.package.sessions import Bf16Session, Fp32Session, Session
from pulmo.package.views import move_films

# Names in model.onnx. Its input is gray values 0..255, float32 (N, S, S). The outputs are log-odds of PNEUMONIA (N,);
# where the network allows it, a map (N, h, w) that is positive where a place speaks for PNEUMONIA; and the mean
# (N, channels) of the feature maps at up to four depths, as stage1, stage2, … from shallow to deep.
FILMS, LOGIT, HEAT, STAGE = "films", "logit", "heat", "stage"
_DIMENSIONS = {LOGIT: 1, HEAT: 3}
CELLS = 7  # each way, that are covered in turn where a network has no map of its own
BATCH = 8  # films at a time, and halves of it for the rest; ONNX Runtime's memory grows with every other number


class Network:
    """A package's network, ready to compute; safe to use from many threads."""

    def __init__(self, file: Path | bytes, tta_views: int = 1, threads: int = 0, bf16: bool = False) -> None:
        """`file`: model.onnx or its content. `threads` compute one call (0 = one per core), in fp32 unless in `bf16`.

        UserError where it is no network that takes films and answers with log-odds.
        """
        engine = Bf16Session if bf16 else Fp32Session
        with _naming_network():
            self._session: Session = engine(file, threads)
        self.outputs = self._session.outputs
        if self._session.inputs != [FILMS] or LOGIT not in self.outputs:
            raise _unusable(f"it does not answer {FILMS} with {LOGIT}")
        self._stages = [name for name in self.outputs if name.startswith(STAGE)]
        self.tta_views = tta_views

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Log-odds of PNEUMONIA, float32 (N,), of gray images uint8 (N, S, S): the mean over the package's views."""
        return self._score(images, [])[0]

    def score_and_read(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """The results of `score` and `read_stages`, computed together."""
        return self._score(images, self._stages)

    @property
    def has_heat(self) -> bool:
        """True where `explain` gives maps."""
        return HEAT in self.outputs

    def explain(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Maps (N, h, w), positive where a place speaks for PNEUMONIA, negative where for NORMAL; of the films as they
        are. None where the network does not end in pooling and one linear layer."""
        return self._run([HEAT], images.astype(np.float32))[0] if self.has_heat else None

    def occlude(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A map (7, 7) of one film (S, S) as `explain` gives it, of any network: what the log-odds lose when a place is
        covered with the film's mean gray. It takes as long as 50 films."""
        edges = np.linspace(0, len(image), CELLS + 1).round().astype(int)
        films = np.repeat(image[None].astype(np.float32), CELLS**2 + 1, axis=0)  # the last stays as it is
        for film, (row, column) in zip(films, np.ndindex(CELLS, CELLS), strict=False):
            film[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = image.mean()
        logits = self._run([LOGIT], films)[0]
        check_logits(logits)
        return np.asarray(logits[-1] - logits[:-1]).reshape(CELLS, CELLS)

    def read_stages(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Mean feature maps (N, channels) at several depths, shallow first, of the films as they are; an empty list
        where the network has no feature maps."""
        return self._run(self._stages, images.astype(np.float32)) if self._stages else []

    def _score(
        self, images: NDArray[np.uint8], others: list[str]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Log-odds, and other outputs for the films as they are, which is the first view."""
        first, *rest = self._run([LOGIT, *others], move_films(images, *TTA_VIEWS[0]))
        views = [first, *(self._run([LOGIT], move_films(images, *view))[0] for view in TTA_VIEWS[1 : self.tta_views])]
        logits = np.asarray(np.mean(views, axis=0, dtype=np.float32))
        check_logits(logits)
        return logits, rest

    def _run(self, names: list[str], films: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        batches = _cut(films)
        with _naming_network():
            parts: list[Any] = [self._session.run(names, batch) for batch in batches]
        for batch, outputs in zip(batches, parts, strict=True):
            for name, output in zip(names, outputs, strict=True):
                if np.ndim(output) != _DIMENSIONS.get(name, 2) or len(output) != len(batch):
                    raise _unusable(f"its {name} for {len(batch)} films has the shape {np.shape(output)}")
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _cut(films: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Batches of 8, then at most one each of 4, 2 and 1: the fewer a batch has, the longer each of them takes."""
    batches, size = [], BATCH
    while len(films):
        while size > len(films):
            size //= 2
        batches.append(films[:size])
        films = films[size:]
    return batches or [films]


@contextmanager
def _naming_network() -> Iterator[None]:
    """Explain an error of the engine, whose classes have no common name."""
    try:
        yield
    except (MemoryError, UserError):
        raise
    except Exception as error:
        raise _unusable(_shorten(str(error))) from error


def _shorten(reason: str) -> str:
    """The reason alone, without the code, the place and the function that ONNX Runtime puts before it."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (/\S+ .*?\) (?=[A-Z]))?", "", " ".join(reason.split()))[:160]


def _unusable(reason: str) -> UserError:
    return UserError(
        f"model.onnx of the package cannot be used: {reason}",
        "copy the package again, or make it anew by `dvc repro -f -s evaluate`",
    )


def check_logits(logits: NDArray[Any]) -> None:
    """UserError where log-odds are not finite: NaN compares as NORMAL to every threshold."""
    if wrong := int((~np.isfinite(logits)).sum()):
        raise UserError(
            f"the network's output for {wrong} of {len(logits)} films is no finite number",
            "its weights are damaged, or too large for bf16: copy the package again, or train again with "
            "train.precision: fp32",
        )
