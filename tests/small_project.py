"""A pipeline of a minute's work cut down to seconds: few phantom films, small images, a short training."""

import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("download", "split", "preprocess", "train", "evaluate")

SMALL: dict[str, Any] = {
    "data": {"phantom": {"films": 90}},
    "split": {"val_fraction": 0.25},
    "preprocess": {"size": 48, "workers": 1},
    "train": {"arch": "squeezenet1_1", "epochs": 2, "batch_size": 16, "precision": "fp32"},
    "evaluate": {"bootstrap": 100, "robustness_films": 20, "explain_films": 8},
}


def write_params(folder: Path, *overlays: dict[str, Any]) -> None:
    """params.yaml of the repository with SMALL and then `overlays` laid over it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for overlay in (SMALL, *overlays):
        _merge(params, overlay)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run_stage(name: str, folder: Path) -> None:
    """Run a stage in this process with `folder` as its working directory; raises SystemExit as the stage does."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(folder)
    try:
        runpy.run_path(str(ROOT / "stages" / f"{name}.py"), run_name="__main__")
    finally:
        os.chdir(before)
        sys.path[:] = path


def copy_project(source: Path, target: Path) -> Path:
    """A copy of a small project, to spoil."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict):
            _merge(base[key], value)
        else:
            base[key] = value
