"""Signs, beside the picture itself, that a file holds no frontal film of a chest."""

import io
import re
from typing import Any

import numpy as np
from PIL import Image

LEAST_SIDE = 32  # pixels; smaller ones are icons and previews
_X_RAY = {"CR", "DX", "DR", "RF", "RG", "OT", ""}  # OT and nothing: who stored it did not say
_CHEST = ("CHEST", "THORAX", "TORAX", "LUNG")
_ANYTHING = {"", "UNKNOWN", "OTHER", "BODY", "NA", "NONE"}
_LATERAL = {"LL", "RL", "LAT", "LATERAL", "LM", "ML"}
_GRAY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
_TINT = 24  # gray levels between the channels of a pixel; a lossy gray film stays far below
_TINTED = 0.1  # share of the pixels; a coloured mark on a film has less
_SAMPLE = 64  # pixels each way that are looked at


def is_plain_film(modality: str) -> bool:
    """True for the modalities of plain X-ray films, and where a header does not say."""
    return modality.strip().upper() in _X_RAY


def judge_header(film: Any) -> str:
    """The attribute of a DICOM data set by which it is no frontal chest film; empty where none says so."""
    modality, part, view = (_read_code(film, name) for name in ("Modality", "BodyPartExamined", "ViewPosition"))
    if not is_plain_film(modality):
        return f"its DICOM header says modality {modality}, no plain X-ray film"
    if part not in _ANYTHING and not any(name in part for name in _CHEST):
        return f"its DICOM header says body part {part}"
    if view in _LATERAL:
        return f"its DICOM header says view {view}, from the side"
    return ""


def judge_picture(image: Image.Image, content: bytes = b"") -> str:
    """The sign by which a picture is no film, as small size or colour; empty where there is none.

    `content`, that of a JPEG, is read for colour where `image` was decoded in gray.
    """
    if min(image.size) < LEAST_SIDE:
        return f"{image.width} x {image.height} pixels are too few for a film"
    if content:
        image = Image.open(io.BytesIO(content), formats=("JPEG",))
        if image.mode not in _GRAY_MODES:
            image.draft("RGB", (_SAMPLE, _SAMPLE))
    return "a picture in colour" if image.mode not in _GRAY_MODES and _is_coloured(image) else ""


def _is_coloured(image: Image.Image) -> bool:
    sample = image.resize((_SAMPLE, _SAMPLE), Image.Resampling.NEAREST).convert("RGB")
    spread = np.ptp(np.asarray(sample).astype(np.int16), axis=2)
    return bool((spread > _TINT).mean() > _TINTED)


def _read_code(film: Any, name: str) -> str:
    """A code of the header in capitals, without what could garble a line."""
    return re.sub(r"[^A-Z0-9 _-]", "", str(film.get(name) or "").upper()).strip()[:16]
