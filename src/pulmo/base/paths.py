"""The paths of the pipeline's files, relative to the working directory of the stage."""

import os
from pathlib import Path

from pulmo.base.errors import UserError

PARAMS = Path("params.yaml")
RAW = Path("data/raw")
SOURCE = Path("data/source.json")
FILMS = Path("data/films.csv")
SPLITS = Path("data/splits.csv")
IMAGES = Path("data/processed/images.npy")
INDEX = Path("data/processed/index.csv")
HARMONY = Path("data/processed/harmony.json")
TRAINED = Path("models/trained")
PACKAGE = Path("models/package")
REPORTS = Path("reports")
LEAKAGE = REPORTS / "leakage.json"
HISTORY = REPORTS / "history.csv"
MLFLOW_RUN = REPORTS / "mlflow_run.json"
METRICS = REPORTS / "metrics.json"
EVALUATION = REPORTS / "evaluation.json"
PREDICTIONS = REPORTS / "predictions.csv"
CARD = REPORTS / "model_card.md"
CARD_HTML = REPORTS / "model_card.html"
COMPARISON = REPORTS / "comparison.json"
PLOTS = REPORTS / "plots"
CURVES = REPORTS / "curves"


def project_root() -> Path:
    """The root of the user's checkout, also when DVC runs the stage in a temporary copy of it (`--temp`, queue).

    DVC sets DVC_ROOT to the real root in every mode; what must outlive a temporary copy (tracking store, resumable
    training state, caches) and relative paths that the user typed belong there. Without it, the nearest folder with
    .dvc in it, from the working directory up; that directory itself where there is none.
    """
    if root := os.environ.get("DVC_ROOT"):
        return Path(root).resolve()
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


def require_project() -> Path:
    """`project_root`; UserError where neither the working directory nor a folder above it is a project."""
    root = project_root()
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root} lies in no Pulmo project", "cd into your clone of it; git clone brings one")
    return root


def film_store() -> Path:
    """The folder of what earlier runs decoded, which all checkouts and temporary copies of a project share."""
    return project_root() / ".cache/films"


def from_root(path: str | Path) -> Path:
    """A path that the user typed, taken relative to the project root; `~` and environment variables are expanded."""
    return project_root() / expand_home(os.path.expandvars(path))


def expand_home(path: str) -> Path:
    """A path whose `~` is the user's home; where nobody has one, it stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def own_films(path: str, key: str) -> Path:
    """`from_root` for the films that `key` of params.yaml names; a place in data/raw is a UserError."""
    place = from_root(path)
    if place.resolve().is_relative_to((project_root() / RAW).resolve()):
        raise UserError(f"{key}: {place} lies in {RAW}, which DVC empties before the stage runs", "name another place")
    return place
