import sqlite3

import pytest

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.base.names import check_name, check_reference
from pulmo.base.process import run_stage
from pulmo.experiments import promotion, recipes, revisions
from pulmo.experiments.project import Project


@pytest.mark.parametrize("name", ["", " ", "../ours", "a/b", "/ours", "-x", "a b", "a\n", "ours.yaml", "a" * 61, "1st"])
def test_a_path_is_no_name(tmp_path, name):
    with pytest.raises(UserError, match="is no name of a sweep"):
        check_name(name, "sweep")
    with pytest.raises(UserError, match="is no name of a recipe"):
        recipes.read_recipe(tmp_path, name, honest=True)
    assert check_name("resnet18-head_3", "recipe") == "resnet18-head_3"


@pytest.mark.parametrize("text", ["", "  ", "-f", 'it\'s "both"', "a\\", "a\nb", "\033[2J"])
def test_what_nothing_can_be_called_is_one_message(tmp_path, text):
    with pytest.raises(UserError, match="names no experiment, commit or run"):
        promotion.find_candidate(Project(tmp_path), text)
    with pytest.raises(UserError, match="names no experiment, commit or run"):
        revisions.read_output(Project(tmp_path), promotion.EVALUATION, text)
    assert not list(tmp_path.iterdir()), "no store is made for it"


@pytest.mark.parametrize("text", ["workspace", "HEAD~1", "origin/main", "tidy-crow^", "it's mine", "0a1b2c3"])
def test_whatever_git_dvc_or_mlflow_know_can_be_asked_for(text):
    assert check_reference(text) == text


def fail_as_mlflow_does() -> None:
    try:
        raise sqlite3.OperationalError("database or disk is full")
    except sqlite3.OperationalError as error:
        raise RuntimeError("(sqlite3.OperationalError) [SQL: INSERT ...]") from error


@pytest.mark.parametrize("door", ["stage", "command"])
def test_a_database_on_a_full_disk_is_one_message(monkeypatch, door):
    monkeypatch.setattr(cli, "app", fail_as_mlflow_does)
    with pytest.raises(SystemExit) as ended:
        cli.main() if door == "command" else run_stage(fail_as_mlflow_does)
    assert ended.value.code == (
        "error: the database cannot be written: database or disk is full\n\n"
        "hint: check free space and permissions, then run again"
    )


def test_any_other_error_of_a_database_keeps_its_traceback(monkeypatch):
    def fail() -> None:
        raise sqlite3.OperationalError("no such table: runs")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(sqlite3.OperationalError):
        cli.main()
