"""Checks of the MLflow store."""

import os
import shlex

from pulmo.base.addresses import show_address
from pulmo.experiments.checks.finding import Finding, name_few
from pulmo.experiments.project import Project
from pulmo.tracking.upkeep import ask_once, list_left_open, move_artifacts, probe_store


def check_leftover(project: Project) -> Finding:
    """A file store of an older MLflow makes `mlflow ui` look there, and show none of the runs."""
    if list((project.root / "mlruns").glob("*/meta.yaml")):
        return Finding("error", "a leftover mlruns/ hides the store from `mlflow ui`", "mv mlruns mlruns.old")
    return Finding("ok", "no leftover mlruns/")


def check_store(project: Project) -> Finding:
    """Check that runs can be written."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address.startswith("sqlite:///") and not address.startswith("sqlite:////"):
        text = f"MLFLOW_TRACKING_URI={show_address(address)} is relative: temporary experiments would lose their runs"
        return Finding(
            "error",
            text,
            f"export MLFLOW_TRACKING_URI={shlex.quote(f'sqlite:///{project.root}/mlflow.db')}, or unset it",
        )
    if not project.has_store:
        return Finding("ok", "no mlflow.db yet; the first run makes it")
    ask_once()
    runs = probe_store(project.store)
    if moved := move_artifacts(project.store, dry_run=True):
        return Finding(
            "warning", f"{moved} addresses in mlflow.db lead to where this checkout was before", "pulmo sync"
        )
    return Finding("ok", f"{show_address(address) or 'mlflow.db'} takes runs, and holds {runs}")


def check_open_runs(project: Project) -> Finding:
    """Runs that a kill left RUNNING."""
    if not project.has_store:
        return Finding("ok", "no run yet")
    gone, unknown = list_left_open(project.store)
    if gone:
        return Finding(
            "warning", f"{name_few([run.info.run_name for run in gone])} RUNNING without a process", "pulmo sync"
        )
    elsewhere = f"; {len(unknown)} RUNNING on other machines" if unknown else ""
    return Finding("ok", f"no run was left open{elsewhere}")
