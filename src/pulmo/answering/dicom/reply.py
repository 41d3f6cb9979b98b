"""The reply to a DICOM film: a structured report, and a picture where the film can be shown."""

import base64
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pulmo.answering.answer import Answer
from pulmo.answering.dicom.header import read_film_header, to_bytes
from pulmo.answering.dicom.picture import SIDE, draw_answer, make_picture
from pulmo.answering.dicom.report import Verdict, make_report
from pulmo.answering.heatmap import lay_heat, scale_heat, spread_heat
from pulmo.answering.predictor import Predictor
from pulmo.base.errors import UserError
from pulmo.images.decode import decode_gray
from pulmo.images.film import FittedFilm, Gray


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
    if film is None:
        return Reply(report, None)
    gray = _shrink(decode_gray(content))
    pixels = np.repeat(gray[:, :, None], 3, axis=2)
    label = answer.label if answer else None
    heat = predictor.network.explain(film.pixels[None]) if label else None
    if label and heat is not None:
        height, width = gray.shape
        spread = spread_heat(scale_heat(heat[0], label), width, height, predictor.info.size, predictor.info.fit)
        pixels = lay_heat(gray, spread)
    return Reply(report, to_bytes(make_picture(header, verdict, draw_answer(pixels, verdict))))


def encode_reply(
    predictor: Predictor, content: bytes, film: FittedFilm | None, answer: Answer | None, problem: str = ""
) -> dict[str, str | None]:
    """The reply in base64, for JSON: `dicom_sr` and `dicom_picture`; `dicom_problem` where there is none, as for a
    film that is no DICOM."""
    try:
        reply = make_reply(predictor, content, film, answer, problem)
    except UserError as error:
        return {"dicom_sr": None, "dicom_picture": None, "dicom_problem": error.message}
    report, picture = (base64.b64encode(part).decode() if part else None for part in (reply.report, reply.picture))
    return {"dicom_sr": report, "dicom_picture": picture}


def _shrink(gray: Gray) -> Gray:
    picture = Image.fromarray(gray)
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture)
