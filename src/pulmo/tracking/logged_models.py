"""A model package as MLflow model: what `mlflow.pyfunc.load_model`, `mlflow models serve` and the registry take."""

import io
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pulmo.tracking.store import load_mlflow

MODEL = "model"
# Distributions that pulmo.answering.served reaches; MLflow would find them by importing everything in another process.
REQUIREMENTS = (
    *("mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic", "pydicom", "pylibjpeg"),
    *("pylibjpeg-openjpeg", "python-gdcm", "safetensors", "scipy", "torch", "torchvision"),
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
    from mlflow.types.schema import ColSpec, Schema

    outputs = [ColSpec("string", "label"), ColSpec("double", "prob_pneumonia"), ColSpec("double", "threshold")]
    content = io.BytesIO()
    Image.fromarray(film).save(content, "PNG")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, MODEL, run_id, model_type="classifier")
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(
            folder,
            loader_module="pulmo.answering.served",
            data_path=str(package),
            code_paths=[str(Path(__file__).resolve().parents[1])],
            signature=ModelSignature(Schema([ColSpec("binary", "film")]), Schema(outputs)),
            input_example=pd.DataFrame({"film": [content.getvalue()]}),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            mlflow_model=Model(model.artifact_location, run_id, model_id=model.model_id, model_uuid=model.model_id),
        )
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(model.model_id, 0)])
    return str(model.model_id)
