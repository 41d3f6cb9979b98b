"""Any number of films answered in flat memory: decoded and scored on every core, given out in their order. On a Ray
cluster each task does that for a few of them."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pulmo.answering.answer import Answer, ModelId
from pulmo.answering.gather import Source, detach
from pulmo.answering.heatmap import draw_heat, encode_png
from pulmo.answering.predictor import Predictor, read_fitted
from pulmo.base.cluster import join_cluster
from pulmo.base.errors import UserError
from pulmo.base.files import write_bytes
from pulmo.base.process import usable_cores
from pulmo.films.names import IMAGE_SUFFIXES
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
    report: Path | None = None  # the DICOM report that was written
    unreported: str = ""  # the reason why none was, where one was asked for


@dataclass(frozen=True)
class _Asked:
    source: Source
    stem: str  # of the names of files about the film; empty where none are written


@dataclass(frozen=True)
class _Decoded:
    name: str
    stem: str
    film: FittedFilm | None
    error: str = ""
    content: bytes = b""  # where a heat map or a report is to be made


class Folders(NamedTuple):
    """Where files about each film are written; None where they are not."""

    heatmaps: Path | None = None
    reports: Path | None = None  # in DICOM, with a picture beside each


_NOWHERE = Folders()


def answer_films(
    predictor: Predictor, films: Iterable[Source], folders: Folders = _NOWHERE, anyway: bool = False
) -> Iterator[Row]:
    """A row for each film, in their order, and files about each in `folders`.

    Films that are refused have no label, unless they are to be answered `anyway`.
    """
    cores, named = usable_cores(), _name_files(films, folders)
    together = 1 if any(folders) else BATCH  # contents take memory, and drawing far longer than scoring
    with ThreadPoolExecutor(cores) as pool:
        groups: deque[Future[list[Row]]] = deque()
        while group := [pool.submit(_decode, predictor, asked) for asked in islice(named, together)]:
            # all films of the group are being decoded, or are, before a thread of the pool comes to this
            decoded = (film.result() for film in group)
            groups.append(pool.submit(_answer, predictor, decoded, folders, anyway))
            if len(groups) > cores:
                yield from groups.popleft().result()
        for rows in groups:
            yield from rows.result()


def answer_on_cluster(
    predictor: Predictor, package: Path, films: Iterable[Source], folders: Folders = _NOWHERE, anyway: bool = False
) -> Iterator[Row]:
    """The rows and files of `answer_films` from a Ray cluster, each node of which sees the predictor's `package`.

    UserError where there is no cluster, or the package is exchanged meanwhile.
    """
    named = _name_files(map(detach, films), folders)
    groups = iter(lambda: list(islice(named, BATCH)), [])
    with join_cluster() as cluster:
        answer = partial(_answer_group, package.absolute(), predictor.model, folders, anyway)
        for rows in cluster.map(partial(answer, group) for group in groups):
            yield from rows


def _answer_group(package: Path, model: ModelId, folders: Folders, anyway: bool, group: list[_Asked]) -> list[Row]:
    predictor = _load(package, model)
    return _answer(predictor, (_decode(predictor, asked) for asked in group), folders, anyway)


@cache
def _load(package: Path, model: ModelId) -> Predictor:
    """The predictor of a task's process, which takes one core."""
    predictor = Predictor.load_folder(package, model.name, model.version, threads=1)
    if predictor.model != model:
        raise UserError(f"{package} holds another model than at the beginning", "run again")
    return predictor


def _decode(predictor: Predictor, asked: _Asked) -> _Decoded:
    content, film, reason = b"", None, ""
    try:
        content = asked.source.read()
        film = read_fitted(content, predictor.info)
    except UserError as error:
        reason = error.message
    except OSError as error:
        content, reason = b"", error.strerror or str(error)
    return _Decoded(asked.source.name, asked.stem, film, reason, content if asked.stem else b"")


def _answer(predictor: Predictor, films: Iterable[_Decoded], folders: Folders, anyway: bool) -> list[Row]:
    rows, group = [], list(films)
    answers = iter(predictor.answer([decoded.film for decoded in group if decoded.film], anyway))
    for decoded in group:
        answer = next(answers) if decoded.film else None
        error = f"refused: {answer.refusal}" if answer and answer.label is None else decoded.error
        heat, report, unreported = None, None, ""
        if folders.heatmaps and decoded.film and answer and answer.label:
            gray = decode_gray(decoded.content)
            drawn = draw_heat(predictor, decoded.film, gray, answer.label, cover=True)
            assert drawn is not None
            heat = folders.heatmaps / f"{decoded.stem}-heatmap.png"
            write_bytes(heat, encode_png(drawn))
        if folders.reports and decoded.content:
            report, unreported = _write_report(predictor, decoded, answer, folders.reports / decoded.stem)
        rows.append(Row(decoded.name, answer, error, heat, report, unreported))
    return rows


def _write_report(
    predictor: Predictor, decoded: _Decoded, answer: Answer | None, path: Path
) -> tuple[Path | None, str]:
    """The report's file, or the reason why there is none; a picture lies beside it."""
    from pulmo.answering.dicom.reply import make_reply

    try:
        reply = make_reply(predictor, decoded.content, decoded.film, answer, decoded.error)
    except UserError as reason:  # no DICOM, or no memory to draw it
        return None, reason.message
    report = path.with_name(f"{path.name}-report.dcm")
    if reply.picture:
        write_bytes(path.with_name(f"{path.name}-picture.dcm"), reply.picture)
    write_bytes(report, reply.report)
    return report, ""


def _name_files(films: Iterable[Source], folders: Folders) -> Iterator[_Asked]:
    """Each film with a name for the files about it that no other film of this run has."""
    names = set[str]()
    for source in films:
        yield _Asked(source, _find_name(source.name, names) if any(folders) else "")


def _find_name(name: str, names: set[str]) -> str:
    path = Path(name.replace(":", "/"))
    # a DICOM file often bears a UID alone, whose last part is no suffix
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    stem = "stdin" if name == "-" else stem or "film"
    unique, number = stem, 1
    while unique in names:
        number += 1
        unique = f"{stem}-{number}"
    names.add(unique)
    return unique
