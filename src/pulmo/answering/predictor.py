"""Films in, answers out: the same decoding, network, temperature and threshold that were evaluated."""

import io
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.answering.answer import Answer, Decider, ModelId
from pulmo.answering.champion import find_model
from pulmo.answering.checked import Checked, Measure
from pulmo.base.errors import UserError
from pulmo.base.process import computes_bf16_slowly, tell
from pulmo.images.decode import read_film
from pulmo.images.film import FittedFilm, Gray, ImageError, check_picture
from pulmo.images.gray import fit_picture, stretch
from pulmo.images.subject import judge_picture
from pulmo.package.familiarity import Familiarity
from pulmo.package.inference import Network
from pulmo.package.info import PackageInfo
from pulmo.package.storage import read_familiarity, read_onnx

# A film: the path of a file, its content, gray pixels (height, width) as uint8 or uint16, or a DICOM data set
# (pydicom.Dataset). A text is a path.
Film = str | Path | bytes | NDArray[Any] | Any


class Score(NamedTuple):
    """The network's part of an answer."""

    logit: float  # log-odds of PNEUMONIA before calibration
    distance: float | None  # from the train films, as the package's familiarity measures it; None where it tells none
    unlike: bool  # farther than the package's limit


class Predictor:
    """A model package ready to answer; safe to use from many threads."""

    def __init__(
        self,
        info: PackageInfo,
        network: Network,
        model: ModelId,
        familiarity: Familiarity | None = None,
        quick: Network | None = None,
    ) -> None:
        """Without `familiarity` no film is found to be unlike those that the model learnt from. `quick`: the same
        network in bf16, whose measurements are used where they cannot change a decision."""
        self.info = info
        self.familiarity = familiarity
        self.network = network
        self.model = model
        self._decider = Decider(info, model)
        self._measure: Measure = partial(_measure, network, familiarity)
        if quick:
            edges = self._decider.locked.edges, np.array([familiarity.limit] if familiarity else [])
            self._measure = Checked(partial(_measure, quick, familiarity), self._measure, edges)

    @property
    def bf16(self) -> bool:
        """True while bf16 answers clear films; False once it has shown to lie too far from fp32."""
        return isinstance(self._measure, Checked) and self._measure.trusted

    @classmethod
    def load(cls, model: str | Path, threads: int = 0, bf16: bool = False) -> Self:
        """From the folder of a package, such as models/package, or from MLflow's registry, as models:/pulmo@champion or
        models:/pulmo/3. UserError where it cannot be had, is damaged, or has no locked threshold.

        `threads` compute one call (0 = one per core). With `bf16` OpenVINO answers clear films in less than half of the
        time where the processor is fast at that, as Intel's with AMX are: their log-odds differ a little then, and
        decisions do not.
        """
        if str(model).startswith("models:/"):
            place = find_model(str(model))
            return cls.load_folder(place.folder, place.name, place.version, threads, bf16)
        return cls.load_folder(Path(model), threads=threads, bf16=bf16)

    @classmethod
    def load_folder(cls, folder: Path, name: str = "", version: str = "", threads: int = 0, bf16: bool = False) -> Self:
        """From the folder of a package, with the name and version that its answers are to bear."""
        info, content = read_onnx(folder)
        model = ModelId(name or folder.as_posix(), version or info.git_revision[:12], info.weights_sha256)
        network = Network(content, info.tta_views, threads)
        quick = Network(content, info.tta_views, threads, bf16=True) if bf16 else None
        if bf16 and computes_bf16_slowly():
            tell("warning: without AMX this processor takes longer for bf16 than for fp32")
        return cls(info, network, model, read_familiarity(folder, info), quick)

    @overload
    def predict(
        self, films: list[Any] | tuple[Any, ...] | Generator[Any, None, None], anyway: bool = ...
    ) -> list[Answer]: ...
    @overload
    def predict(self, films: Film, anyway: bool = ...) -> Answer: ...
    def predict(self, films: Any, anyway: bool = False) -> Answer | list[Answer]:
        """The answer for one film, or a list of answers in the order of a list of films, or of a generator as
        `Path.glob` gives.

        A film that is refused has no label, unless it is to be answered `anyway`. ImageError where one is no film,
        naming it by its path or its place.
        """
        if isinstance(films, list | tuple | Generator):
            return self.answer([self.read(film, place) for place, film in enumerate(films, start=1)], anyway)
        return self.answer([self.read(films)], anyway)[0]

    def read(self, film: Film, place: int = 1) -> FittedFilm:
        """A film decoded and fitted, as the network sees it; ImageError names it by its path, or as film number
        `place`."""
        try:
            return read_fitted(film, self.info)
        except ImageError as error:
            name = film if isinstance(film, str | Path) else f"film {place}"
            raise ImageError(f"{name}: {error.message}", error.hint) from None

    def answer(self, films: Sequence[FittedFilm], anyway: bool = False) -> list[Answer]:
        """The answers for films that `read` gave, also those that are refused where `anyway` is true."""
        return [self.decide(film, score, anyway) for film, score in zip(films, self.score(films), strict=True)]

    def score(self, films: Sequence[FittedFilm]) -> list[Score]:
        """The network's part of the answers for films that `read` gave."""
        if not films:
            return []
        measured = self._measure(np.stack([film.pixels for film in films]))
        unlike = np.zeros(len(films), bool)
        if self.familiarity:
            unlike = self.familiarity.is_beyond(measured[:, 1])
        return [
            Score(float(logit), float(distance) if np.isfinite(distance) else None, bool(far))
            for (logit, distance), far in zip(measured, unlike, strict=True)
        ]

    def decide(self, film: FittedFilm, score: Score, anyway: bool = False) -> Answer:
        """The answer that follows from a film and its score."""
        return self._decider.answer(score.logit, film.note, film.not_chest, score.unlike, anyway)


def _measure(network: Network, familiarity: Familiarity | None, films: NDArray[np.uint8]) -> NDArray[np.float64]:
    logits, stages = network.score_and_read(films)
    distances = familiarity.measure(stages) if familiarity else np.full(len(logits), np.nan)
    return np.column_stack([logits.astype(np.float64), distances])


def read_fitted(film: Film, info: PackageInfo) -> FittedFilm:
    """A film of any kind as the network that `info` describes is to see it. ImageError where it is none."""
    fitted = _read(film, info.size, info.fit)
    return fitted._replace(pixels=info.harmony.apply(fitted.pixels))


def _read(film: Film, size: int, fit: str) -> FittedFilm:
    if isinstance(film, str | Path):
        return read_film(Path(film), size, fit)
    if isinstance(film, bytes | bytearray | memoryview):
        return read_film(bytes(film), size, fit)
    if isinstance(film, np.ndarray):
        image = Image.fromarray(_to_gray(film))
        check_picture(image)
        return FittedFilm(fit_picture(image, size, fit), not_chest=judge_picture(image))
    if hasattr(film, "save_as") and hasattr(film, "PhotometricInterpretation"):
        return read_film(_to_bytes(film), size, fit)
    raise UserError(
        f"a film of type {type(film).__name__} is not read",
        "give the path of a file, its content as bytes, an array, or a pydicom data set, or a list of these",
    )


def _to_gray(pixels: NDArray[Any]) -> Gray:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        shape = " x ".join(str(side) for side in pixels.shape)
        raise ImageError(
            f"an array of {shape} {pixels.dtype} is no film",
            "give gray pixels, 2-D uint8 or uint16; a list of arrays for several films",
        )
    return cast(Gray, pixels) if pixels.dtype == np.uint8 else stretch(pixels)


def _to_bytes(dataset: Any) -> bytes:
    content = io.BytesIO()
    try:
        dataset.save_as(content, enforce_file_format=True)
    except Exception as error:  # a data set may lack anything
        raise ImageError(f"the DICOM data set cannot be written: {' '.join(str(error).split())}") from None
    return content.getvalue()
