from pathlib import Path

import pytest
from code_reading import PACKAGE, ROOT, imported_names, own_modules, reached_modules

LEVELS = (
    ("paths", "params", "files", "images", "metrics", "model", "augment", "lungs", "tracking", "stage"),
    (
        *("manifest", "package", "training", "preprocessing", "revisions", "experiments"),
        *("calibration", "comparison", "curves", "decisions", "robustness", "renders", "gradcam", "plots", "subgroups"),
    ),
    (
        "sources",
        "splits",
        "dataset",
        "evaluation",
        "shortcuts",
        "card",
        "galleries",
        "recipes",
        "queue",
        "sync",
        "doctor",
        "promotion",
        "trials",
    ),
    ("explain", "figures", "predictor", "comparison_report", "sweep"),
    ("external", "inspection", "served"),
    ("cli", "web"),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = sorted((ROOT / "stages").glob("*.py"))

SINGLE_IMPORTER = {
    "mlflow": "tracking/",
    "matplotlib": "plots.py",
    "optuna": "sweep.py",
    "kagglehub": "sources/kaggle.py",
    "huggingface_hub": "sources/huggingface.py",
    "pydicom": "images.py",
}
WITHOUT_TORCH = ("manifest", "splits", "metrics", "params", "images", "preprocessing")


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def room_and_name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", [file for file in MODULES if file != PACKAGE / "__init__.py"], ids=room_and_name)
def test_a_module_imports_only_from_lower_levels(file):
    assert room(file) in LEVEL, f"{room(file)} has no level; add it to the table here and in CONTRIBUTING.md"
    for other in own_modules(file):
        if room(other) not in (room(file), "__init__"):
            assert LEVEL[room(other)] < LEVEL[room(file)], f"{file.name} may not import {other.name}"


@pytest.mark.parametrize("file", STAGES, ids=lambda file: file.name)
def test_stages_import_neither_stages_nor_the_way_out(file):
    names = {name.split(".")[0] for name in imported_names(file)}
    assert not names & {"stages", *(stage.stem for stage in STAGES)}
    assert not {room(other) for other in own_modules(file)} & {"cli", "web"}


@pytest.mark.parametrize(("library", "owner"), SINGLE_IMPORTER.items())
def test_a_library_has_one_door(library, owner):
    importers = {
        str(file.relative_to(PACKAGE))
        for file in MODULES
        if any(name.split(".")[0] == library for name in imported_names(file))
    }
    assert all(importer.startswith(owner) for importer in importers)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_no_torch_where_none_is_needed(name):
    for file in {PACKAGE / f"{name}.py"} | reached_modules(PACKAGE / f"{name}.py"):
        assert not {top.split(".")[0] for top in imported_names(file)} & {"torch", "torchvision", "lightning"}
