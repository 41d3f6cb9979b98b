"""A film with its heat map and its answer in words, as a Secondary Capture in the film's own study."""

import textwrap
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from pulmo.answering.dicom import codes
from pulmo.answering.dicom.header import MAKER, FilmHeader, make_uid, put_elements
from pulmo.answering.dicom.report import Verdict, describe_equipment

SERIES = 9902
SIDE = 1024  # pixels of the film's longest side; a picture takes some 3 MB
_LEAST = 512  # pixels that the words need in width
_TEXT, _LINE, _MARGIN = 20, 28, 12  # pixels: size of letters, of a line, around them


def make_picture(film: FilmHeader, verdict: Verdict, pixels: NDArray[np.uint8]) -> Any:
    """The picture as a DICOM data set; `pixels` are those of `draw_answer`."""
    instance = make_uid(film.sop_instance, verdict.model.sha256, verdict.model.version, "picture")
    picture = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom wants one; it is taken out again
        study_instance_uid=film.study,
        series_instance_uid=make_uid(instance, "series"),
        series_number=SERIES,
        sop_instance_uid=instance,
        instance_number=1,
        patient_id="",
        series_description=f"{MAKER} picture",
        **describe_equipment(verdict),
    )
    picture.PatientOrientation = []  # blank where the film has none
    picture.ConversionType = "WSD"
    picture.ImageType = ["DERIVED", "SECONDARY"]
    picture.DerivationDescription = f"The film with its heat map and the answer of {verdict.software()}"[:1024]
    picture.SourceImageSequence = [_refer_to(film)]
    picture["PixelData"].VR = "OB"
    put_elements(picture, [*film.shared, *film.of_picture])
    if picture.get_item("BodyPartExamined") is None:
        picture.Laterality = ""  # DICOM wants it, even blank, unless the part is known to be no pair
    return picture


def draw_answer(pixels: NDArray[np.uint8], verdict: Verdict) -> NDArray[np.uint8]:
    """A film, uint8 (height, width, 3), above a band with what is said of it."""
    film = Image.fromarray(pixels)
    width = max(film.width, _LEAST)
    font = ImageFont.load_default(_TEXT)
    letters = int((width - 2 * _MARGIN) / font.getlength("n"))
    lines = [line for text in verdict.sentences() for line in textwrap.wrap(text, max(letters, 20))]
    canvas = Image.new("RGB", (width, film.height + _LINE * len(lines) + 2 * _MARGIN))
    canvas.paste(film, ((width - film.width) // 2, 0))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((_MARGIN, film.height + _MARGIN + number * _LINE), line, "white", font)
    return np.array(canvas)


def _refer_to(film: FilmHeader) -> Dataset:
    source, purpose = Dataset(), Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = film.sop_class, film.sop_instance
    code = codes.SOURCE_IMAGE
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code[:3]
    source.PurposeOfReferenceCodeSequence = [purpose]
    return source
