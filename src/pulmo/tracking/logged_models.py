"""A model package as MLflow model: what `mlflow.pyfunc.load_model`, `mlflow models serve` and the registry take."""

import io
import logging
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pulmo.tracking.store import DESCRIPTION, load_mlflow

_TAGS = ("dvc.experiment", "dvc.baseline", "git.revision", "data_sha256", "train_run_id", DESCRIPTION)  # of its run
# MLflow, which calls it, and what pulmo.answering.served reaches; MLflow would find that by importing everything in
# another process.
REQUIREMENTS = (
    *("mlflow", "numpy", "onnxruntime", "opencv-python-headless", "pandas", "pillow", "psutil", "pydantic", "pydicom"),
    *("pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm", "safetensors", "scipy"),
)


def log_model(client: Any, run_id: str, package: Path, film: np.ndarray) -> str:
    """Log the package, with the code that answers from it, as the model of a run; returns its id, for models:/<id>.

    `film` (gray, uint8) becomes the input example.
    """
    import pandas as pd
    from PIL import Image

    mlflow = load_mlflow()
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # warns where uv made the environment
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    content = io.BytesIO()
    Image.fromarray(film).save(content, "PNG")
    model = _create_model(client, client.get_run(run_id))
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(
            folder,
            loader_module="pulmo.answering.served",
            data_path=str(package),
            code_paths=[str(Path(__file__).resolve().parents[1])],
            signature=ModelSignature(
                Schema([ColSpec("binary", "film")]),
                _answer_schema(),
                params=ParamSchema([ParamSpec("anyway", "boolean", False)]),
            ),
            input_example=pd.DataFrame({"film": [content.getvalue()]}),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            mlflow_model=Model(model.artifact_location, run_id, model_id=model.model_id, model_uuid=model.model_id),
        )
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(model.model_id, 0)])
    return str(model.model_id)


def _create_model(client: Any, run: Any) -> Any:
    """A model without files, under the name of the experiment, with its params and what tells of its origin."""
    return client.create_logged_model(
        run.info.experiment_id,
        re.sub("[/:.%\"']", "_", run.info.run_name),
        run.info.run_id,
        tags={key: value for key, value in run.data.tags.items() if key in _TAGS},
        params=run.data.params,
        model_type="classifier",
    )


def _answer_schema() -> Any:
    """The columns of `pulmo.answering.answer.Answer`, which answering alone may import."""
    from mlflow.types.schema import ColSpec, Object, Property, Schema

    interval = Object([Property(name, "double", required=False) for name in ("value", "low", "high")])
    model = Object([Property(name, "string") for name in ("name", "version", "sha256")])
    columns = {
        "label": "string",
        "prob_pneumonia": "double",
        "threshold": "double",
        "sensitivity": interval,
        "specificity": interval,
        "unsure": "boolean",
        "not_a_chest_film": "string",
        "unlike_training": "boolean",
        "note": "string",
        "logit": "double",
        "model": model,
        "anyway": "boolean",
    }
    absent = ("label", "prob_pneumonia", "logit", "not_a_chest_film")  # of films that are refused, or are not
    return Schema([ColSpec(kind, name, required=name not in absent) for name, kind in columns.items()])
