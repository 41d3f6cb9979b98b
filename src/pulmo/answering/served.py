"""The model package as an MLflow pyfunc model: file contents of films in, one answer for each out."""

from pathlib import Path
from typing import Any

import pandas as pd

from pulmo.answering.predictor import Predictor


class Served:
    """What `mlflow.pyfunc.load_model` and `mlflow models serve` call."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Columns label, prob_pneumonia and threshold, in the order of the rows of `model_input`.

        Its column `film` holds the bytes of image or DICOM files; ImageError where one is no film.
        """
        answers = self.predictor.predict(list(model_input["film"]))
        columns = ("label", "prob_pneumonia", "threshold")
        return pd.DataFrame({name: [getattr(answer, name) for answer in answers] for name in columns})


def _load_pyfunc(path: str) -> Served:
    return Served(Predictor.load(Path(path)))
