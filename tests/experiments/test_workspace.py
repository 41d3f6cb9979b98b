"""The first results of one's own in a clone whose HEAD tells of results that were made elsewhere."""

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from small_project import commit, run
from toy_project import PARAMS, make_toy
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.base.paths import EVALUATION
from pulmo.experiments import doctor
from pulmo.experiments.listing import Experiment, read_experiments
from pulmo.experiments.listing_table import format_experiments
from pulmo.experiments.project import Project
from pulmo.experiments.promotion import find_candidate
from pulmo.experiments.revisions import read_output
from pulmo.experiments.sync import sync_store
from pulmo.tracking.runs import evaluate_run
from pulmo.tracking.store import open_store
from pulmo.tracking.upkeep import REPLACED

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clone(tmp_path) -> Path:
    """What `make repro` leaves in a fresh clone: HEAD's outputs are in no cache, and the workspace differs from it."""
    folder = make_toy(tmp_path / "toy")
    shutil.rmtree(folder / ".dvc/cache")
    (folder / "params.yaml").write_text(PARAMS.replace("0.1", "0.2"))
    run(folder, "dvc", "repro", "--quiet")
    return folder


def list_by_name(folder: Path) -> dict[str, Experiment]:
    return {item.name: item for item in read_experiments(Project(folder), commits=True)}


def test_the_workspace_is_an_experiment_until_it_is_committed(clone, monkeypatch):
    project = Project(clone)
    listed = list_by_name(clone)
    assert list(listed) == ["workspace", "main"]
    assert listed["workspace"].metrics["val.auroc"] == 1 / 3 + 0.2
    assert listed["main"].metrics["val.auroc"] == 1 / 3 + 0.1
    assert datetime.fromisoformat(listed["workspace"].created) <= datetime.now()
    assert '"test"' in read_output(project, EVALUATION, "workspace")
    made_elsewhere = r"(?s)evaluation.json of 'main' was made elsewhere.*git commit -am .* they are `workspace`"
    with pytest.raises(UserError, match=made_elsewhere):
        read_output(project, EVALUATION, "main")
    with pytest.raises(UserError, match=made_elsewhere):
        find_candidate(project, "main")
    found = doctor.check_results(project)
    assert (found.state, found.cure) == ("warning", 'git commit -am "My first results"')
    monkeypatch.chdir(clone)
    text = CliRunner().invoke(cli.app, ["experiments"]).output
    assert 'workspace: results that are not committed; `git commit -am "My first results"` keeps them' in text
    assert "HEAD: made elsewhere" in text

    commit(clone, "My first results")
    assert list(list_by_name(clone)) == ["main"]
    assert read_output(project, EVALUATION, "main") == read_output(project, EVALUATION, "workspace")
    assert doctor.check_results(project).state == "ok"


def test_an_evaluation_that_was_killed_before_dvc_knew_leaves_one_run_that_counts(clone, monkeypatch):
    monkeypatch.chdir(clone)
    for _ in range(2):
        with evaluate_run(clone, {"run_id": "none", "environment": {}}, {}, {}, []) as evaluated:
            evaluated.tag_hash("evaluation", (clone / EVALUATION).read_bytes())
    project = Project(clone)
    later, earlier = project.store.find_runs()
    lines = list(sync_store(project))
    assert [line.split()[0] for line in lines] == ["replaced"]
    assert earlier.info.run_id in lines[0]
    marked = [run.info.run_id for run in project.store.find_runs() if REPLACED in run.data.tags]
    assert marked == [earlier.info.run_id]
    assert later.info.run_name == earlier.info.run_name
    assert not list(sync_store(project))


def test_what_was_applied_or_not_run_to_its_end_is_no_other_experiment(clone):
    commit(clone, "My first results")
    run(clone, "dvc", "exp", "run", "--quiet", "-n", "tried", "-S", "train.lr=0.3")
    assert list(list_by_name(clone)) == ["main", "tried"]
    (clone / "params.yaml").write_text(PARAMS.replace("0.1", "0.4"))
    assert list(list_by_name(clone)) == ["main", "tried"], "nothing has run with these params"
    run(clone, "dvc", "exp", "remove", "tried")
    workspace = list_by_name(clone)["workspace"]
    assert (workspace.state, workspace.metrics) == ("Unfinished", {})


def test_an_experiment_without_a_stage_run_is_never_answered_by_another(clone, monkeypatch):
    """DVC takes the second of two experiments with the same params from its cache, so that no stage makes its run."""
    commit(clone, "My first results")
    monkeypatch.chdir(clone)
    for name in ("first", "second"):
        run(clone, "dvc", "exp", "run", "--quiet", "--temp", "-n", name, "-S", "train.lr=0.3")
    open_store(clone)
    text = CliRunner().invoke(cli.app, ["experiments"]).output
    assert "without a run in MLflow: first, second, workspace; `pulmo sync` adds it" in " ".join(text.split())
    done = CliRunner().invoke(cli.app, ["compare", "first", "main"])
    assert "added              second" in done.output
    assert "is found neither by DVC" in str(done.exception), "the toy has no predictions, but the runs are there"
    client = open_store(clone).client
    for run_found in open_store(clone).find_runs():
        client.delete_run(run_found.info.run_id)
    done = CliRunner().invoke(cli.app, ["promote", "second"])
    assert "added              second" in done.output
    assert "'second' holds no model" in str(done.exception), "the toy has none, but the run is its own"
    text = CliRunner().invoke(cli.app, ["experiments"]).output
    assert "without a run" not in text


def test_experiments_on_other_films_are_not_ranked_with_ours():
    def experiment(name: str, auroc: float, state: str, data: str, source: str) -> Experiment:
        params = {"data.source": source, "data.folder.path": "x/hospital.zip"}
        return Experiment(name, name, "b" * 40, "", state, params, {"val.auroc": auroc}, None, data)

    rows = [
        experiment("theirs", 0.99, "Success", "f00d" * 16, "folder"),
        experiment("main", 0.8, "Commit", "beef" * 16, "phantom"),
        experiment("ours", 0.9, "Success", "beef" * 16, "phantom"),
        experiment("waiting", 0.0, "Queued", "", "folder"),
    ]
    first, second = format_experiments(rows, now=datetime(2026, 3, 1)).split(
        "\n\nvalidated and tested on other films (folder hospital.zip, data f00df00):\n\n"
    )
    assert [line.split()[0] for line in first.splitlines()[2:5]] == ["ours", "main", "waiting"]
    assert "theirs" not in first
    assert [line.split()[0] for line in second.splitlines()[2:]] == ["theirs"]
