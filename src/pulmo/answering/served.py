"""The model package as an MLflow pyfunc model: file contents of films in, one answer for each out."""

import base64
import binascii
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pulmo.answering.predictor import Predictor
from pulmo.images.film import ImageError

COLUMN = "film"


class Served:
    """The object behind `mlflow.pyfunc.load_model` and `mlflow models serve`."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """An answer for each film, in the order of the films: a table where `model_input` is one, else a list.

        Its column `film` holds the contents of image or DICOM files, as bytes or base64. Films that are refused have no
        label, unless `params` has `anyway`. Where one is no film, an exception says which.
        """
        anyway = bool((params or {}).get("anyway"))
        contents = [decode_content(film) for film in _read_column(model_input)]
        try:
            rows = [answer.to_dict() for answer in self.predictor.predict(contents, anyway)]
        except ImageError as error:
            raise _refuse(str(error)) from None
        # as objects, for a column of numbers would make NaN, which is no JSON, of what a refused film lacks
        return type(model_input)(rows, dtype=object) if hasattr(model_input, "columns") else rows


def _read_column(model_input: Any) -> Iterable[Any]:
    """The films of a pandas table or of a dictionary of columns."""
    names = list(model_input) if isinstance(model_input, Mapping) or hasattr(model_input, "columns") else []
    if names != [COLUMN]:
        raise _refuse(f"the input has one column, `{COLUMN}`, of image or DICOM files as bytes or base64")
    column = model_input[COLUMN]
    return [column] if isinstance(column, str | bytes) else list(column)


def decode_content(film: Any) -> bytes:
    """A film's content from bytes or base64.

    MLflow decodes base64 in some of the forms that a request may have, and not in others; no image or DICOM file
    consists of base64's characters alone.
    """
    try:
        return base64.b64decode(film, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return film if isinstance(film, bytes) else str(film).encode()


def _refuse(reason: str) -> Exception:
    # MLflow answers an exception of its own in one line, and any other with a traceback full of the server's paths.
    if exceptions := sys.modules.get("mlflow.exceptions"):
        refusal: Exception = exceptions.MlflowException.invalid_parameter_value(reason)
        return refusal
    return ImageError(reason)


def _load_pyfunc(path: str) -> Served:
    return Served(Predictor.load_folder(Path(path), name="pulmo"))
