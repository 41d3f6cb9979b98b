from pathlib import Path

import pytest
from small_project import ROOT

from pulmo.base.code import PACKAGE, imported_names, own_modules, reached_modules

LEVELS = (
    ("base",),
    ("films", "metrics", "package"),
    ("images", "sources", "model", "reporting", "tracking"),
    ("dataset", "training", "evaluation", "answering", "experiments"),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = sorted((ROOT / "stages").glob("*.py"))

ONE_DOOR = {
    "mlflow": ("tracking/",),
    "matplotlib": ("reporting/",),
    "optuna": ("experiments/search.py", "experiments/sweep.py", "experiments/study.py"),
    "kagglehub": ("sources/kaggle/",),
    "huggingface_hub": ("sources/huggingface/", "model/hubs/repositories.py"),
    "timm": ("model/hubs/timm_models.py", "model/hubs/hf_models.py"),
    "torchxrayvision": ("model/hubs/xrv_models.py",),
    "pydicom": ("images/", "answering/dicom/"),
    "highdicom": ("answering/dicom/",),
    "pynetdicom": ("answering/dicom/",),
    "s3fs": ("films/remote.py",),
    "onnx": ("model/export.py",),
    "ray": ("base/cluster.py", "answering/replicas.py"),
    "onnxruntime": ("package/sessions.py",),
    "openvino": ("package/sessions.py",),
    "rich": ("base/tables.py", "experiments/leaderboard.py"),
}
WITHOUT_TORCH = ("base", "films", "metrics", "package", "images", "sources", "dataset", "answering")
TORCH = {"torch", "torchvision", "lightning"}


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_in_package(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_every_room_has_a_level_and_every_level_a_room():
    assert {room(file) for file in MODULES} - {"__init__"} == set(LEVEL), (
        "add it to the table here and in CONTRIBUTING.md"
    )


@pytest.mark.parametrize("file", [file for file in MODULES if file != PACKAGE / "__init__.py"], ids=name_in_package)
def test_a_room_imports_only_from_lower_levels(file):
    for other in own_modules(file):
        if room(other) not in (room(file), "__init__"):
            assert LEVEL[room(other)] < LEVEL[room(file)], f"{file.name} may not import {other.name}"


@pytest.mark.parametrize("file", STAGES, ids=lambda file: file.name)
def test_stages_import_neither_stages_nor_the_ways_out(file):
    names = {name.split(".")[0] for name in imported_names(file)}
    assert not names & {"stages", *(stage.stem for stage in STAGES)}
    assert not {room(other) for other in own_modules(file)} & {"cli", "answering", "experiments"}


@pytest.mark.parametrize(("library", "owners"), ONE_DOOR.items())
def test_a_library_has_one_door(library, owners):
    importers = [file for file in MODULES if any(name.split(".")[0] == library for name in imported_names(file))]
    assert importers, f"nothing imports {library}"
    assert all(name_in_package(file).startswith(owners) for file in importers)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_no_torch_where_none_is_needed(name):
    files = set((PACKAGE / name).rglob("*.py"))
    for file in files.union(*(reached_modules(file) for file in files)):
        assert not {top.split(".")[0] for top in imported_names(file)} & TORCH, f"{name} reaches torch in {file}"


def test_answers_need_neither_mlflow_nor_dvc():
    files = set((PACKAGE / "answering").rglob("*.py"))
    for file in files.union(*(reached_modules(file) for file in files)):
        assert not {top.split(".")[0] for top in imported_names(file)} & {"mlflow", "dvc"}, f"answering reaches {file}"
