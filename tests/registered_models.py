"""Rows of MLflow's registry written by hand, for tests that answer without MLflow."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path


def register(root: Path, sources: Mapping[int, str]) -> None:
    """Give the store of a project a model with these versions, by the address of each; the first is champion."""
    change(root, "INSERT INTO registered_models (name) VALUES ('pulmo')")
    for number, source in sources.items():
        row = f"('pulmo', {number}, 'run{number}', '{source}', '{source}')"
        change(root, f"INSERT INTO model_versions (name, version, run_id, source, storage_location) VALUES {row}")
    change(root, "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('pulmo', 'champion', 1)")


def change(root: Path, statement: str) -> None:
    """Run a statement on the store of a project."""
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute(statement)
