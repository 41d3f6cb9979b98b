"""`pip install pulmo` without the pipeline, played by hiding the pipeline's libraries from Python."""

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from code_reading import ROOT

HIDE = """
import sys

HIDDEN = {names}

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
from importlib import util
found = util.find_spec
util.find_spec = lambda name, package=None: None if name.split(".")[0] in HIDDEN else found(name, package)
sys.argv = ["pulmo", *{arguments}]
from pulmo.cli import main
main()
"""
PIPELINE = ["dvc", "filelock", "jinja2", "lightning", "matplotlib", "mlflow", "onnx", "optuna", "pandas", "ruamel"]
PIPELINE += ["safetensors", "scipy", "sklearn", "sqlalchemy", "torch", "torchvision"]


def run_light(folder: Path, *arguments: str, hidden: Sequence[str] = PIPELINE) -> subprocess.CompletedProcess[str]:
    program = HIDE.format(names=list(hidden), arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_command_of_the_pipeline_says_what_to_install(tmp_path):
    done = run_light(tmp_path, "experiments")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: this command belongs to the pipeline")
    assert done.stderr.rstrip().endswith("hint: pip install 'pulmo[pipeline]'")


@pytest.mark.parametrize("command", [("listen", "--to", "A@host:1"), ("predict", "--dicom-sr", "out", "film.dcm")])
def test_what_writes_dicom_says_what_to_install(tmp_path, command):
    done = run_light(tmp_path, *command, hidden=["highdicom", "pynetdicom"])
    assert done.returncode == 1
    assert done.stderr == "error: highdicom is not installed\n\nhint: pip install 'pulmo[dicom]'\n"


def test_a_server_in_bf16_says_what_to_install(tmp_path):
    done = run_light(tmp_path, "serve", "--bf16", hidden=["openvino"])
    assert done.returncode == 1
    assert done.stderr == "error: openvino is not installed\n\nhint: pip install 'pulmo[openvino]'\n"


def test_replicas_of_a_server_need_no_pipeline(tmp_path):
    pytest.importorskip("ray", reason="pulmo[ray] is not installed")
    done = run_light(tmp_path, "serve", "--ray", "1:1", "--package", "none")
    assert "none is no model package" in done.stderr


@pytest.mark.slow
def test_films_are_answered_without_the_pipeline(project, tmp_path):
    film = next((project / "data/raw").rglob("*.jpeg"))
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(film, film.name)
    package = str(project / "models/package")
    done = run_light(tmp_path, "predict", "--package", package, str(film), str(tmp_path / "films.zip"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("prob_pneumonia") == 2


def test_what_answers_is_not_among_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {line.split(">")[0] for line in project["dependencies"]}
    assert {"numpy", "onnxruntime", "pillow", "pydantic", "pydicom", "typer"} <= core
    assert not core & {"dvc", "mlflow", "torch", "torchvision", "pandas", "lightning", "matplotlib", "scipy"}
