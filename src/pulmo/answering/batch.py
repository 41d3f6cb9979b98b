"""Any number of films answered in flat memory: decoded in threads, scored together, given out in their order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pulmo.answering.answer import Answer
from pulmo.answering.gather import Source
from pulmo.answering.heatmap import draw_heat, scale_heat, spread_heat
from pulmo.answering.predictor import Predictor
from pulmo.base.errors import UserError
from pulmo.base.files import write_bytes
from pulmo.base.process import usable_cores
from pulmo.images.decode import decode_gray
from pulmo.images.film import FittedFilm
from pulmo.package.inference import BATCH


@dataclass(frozen=True)
class Row:
    """The answer for a film, which has no label where the film is refused; None where it could not be read."""

    film: str
    answer: Answer | None
    error: str = ""  # the reason why there is no label
    heatmap: Path | None = None  # the picture that was written


@dataclass(frozen=True)
class _Decoded:
    name: str
    film: FittedFilm | None
    error: str = ""
    content: bytes = b""  # where a heat map is to be drawn


def answer_films(
    predictor: Predictor, films: Iterable[Source], heatmaps: Path | None = None, anyway: bool = False
) -> Iterator[Row]:
    """A row for each film, in their order; with `heatmaps`, a folder, a picture of each answered film is written there.

    Films that are refused have no label, unless they are to be answered `anyway`.

    UserError, before any film is read, where the network has no heat map to give.
    """
    if heatmaps and not predictor.network.has_heat:
        raise UserError(
            f"--heatmap: this {predictor.info.arch} has no heat map without PyTorch, for it does not end in a map of "
            "several places, pooling and one linear layer",
            "a ResNet, DenseNet, EfficientNet or MobileNetV2 has one",
        )
    cores, names = usable_cores(), set[str]()
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque[Future[_Decoded]] = deque()
        group: list[_Decoded] = []
        for source in films:
            waiting.append(pool.submit(_decode, predictor, source, heatmaps is not None))
            if len(waiting) >= cores + BATCH:
                group.append(waiting.popleft().result())
            if len(group) == BATCH:
                yield from _answer(predictor, group, heatmaps, names, anyway)
                group = []
        group += [future.result() for future in waiting]
        for start in range(0, len(group), BATCH):
            yield from _answer(predictor, group[start : start + BATCH], heatmaps, names, anyway)


def _decode(predictor: Predictor, source: Source, keep: bool) -> _Decoded:
    try:
        content = source.read()
        return _Decoded(source.name, predictor.read(content), content=content if keep else b"")
    except UserError as error:
        return _Decoded(source.name, None, error.message.removeprefix("film 1: "))
    except OSError as error:
        return _Decoded(source.name, None, error.strerror or str(error))


def _answer(
    predictor: Predictor, group: list[_Decoded], heatmaps: Path | None, names: set[str], anyway: bool
) -> Iterator[Row]:
    answers = iter(predictor.answer([decoded.film for decoded in group if decoded.film], anyway))
    for decoded in group:
        if decoded.film is None:
            yield Row(decoded.name, None, decoded.error)
            continue
        answer = next(answers)
        if answer.label is None:
            yield Row(decoded.name, answer, f"refused: {answer.refusal}")
            continue
        drawn = _write_heat(predictor, decoded, answer.label, heatmaps, names) if heatmaps else None
        yield Row(decoded.name, answer, heatmap=drawn)


def _write_heat(predictor: Predictor, decoded: _Decoded, label: str, folder: Path, names: set[str]) -> Path:
    assert decoded.film is not None
    gray = decode_gray(decoded.content)
    heat = predictor.network.explain(decoded.film.pixels[None])
    assert heat is not None
    height, width = gray.shape
    spread = spread_heat(scale_heat(heat[0], label), width, height, predictor.info.size, predictor.info.fit)
    path = folder / _name_picture(decoded.name, names)
    write_bytes(path, draw_heat(gray, spread))
    return path


def _name_picture(name: str, names: set[str]) -> str:
    """A file name for a film's picture that no other film of this run has."""
    stem = Path(name.replace(":", "/")).stem or "film"
    stem = "stdin" if name == "-" else stem
    unique, number = stem, 1
    while unique in names:
        number += 1
        unique = f"{stem}-{number}"
    names.add(unique)
    return f"{unique}.png"
