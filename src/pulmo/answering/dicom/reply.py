"""The reply to a DICOM film: a structured report, and a picture where the film can be shown."""

from dataclasses import dataclass

import numpy as np

from pulmo.answering.answer import Answer
from pulmo.answering.dicom.header import read_film_header, to_bytes
from pulmo.answering.dicom.picture import SIDE, draw_answer, make_picture
from pulmo.answering.dicom.report import Verdict, make_report
from pulmo.answering.heatmap import decode_small, draw_heat
from pulmo.answering.predictor import Predictor
from pulmo.images.film import FittedFilm


@dataclass(frozen=True)
class Reply:
    """Contents of DICOM files."""

    report: bytes
    picture: bytes | None  # None where the film cannot be decoded


def make_reply(
    predictor: Predictor, content: bytes, film: FittedFilm | None, answer: Answer | None, problem: str = ""
) -> Reply:
    """The reply to the film whose file has this content.

    `film` and `answer` are None where it could not be decoded, and `problem` says why. NotDicom where no report can
    refer to the film.
    """
    header = read_film_header(content)
    verdict = Verdict(answer, problem, predictor.model)
    report = to_bytes(make_report(header, verdict))
    if film is None or answer is None:
        return Reply(report, None)
    gray = decode_small(content, SIDE)
    pixels = draw_heat(predictor, film, gray, answer.label)
    if pixels is None:
        pixels = np.repeat(gray[:, :, None], 3, axis=2)
    return Reply(report, to_bytes(make_picture(header, verdict, draw_answer(pixels, verdict))))
