import json
import re
import shutil
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from small_project import commit, run
from toy_project import PARAMS, PIPELINE, STAGE, make_toy
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.base.process import process_lives
from pulmo.experiments import queue
from pulmo.experiments.dvc import Dvc, failure_reason
from pulmo.experiments.listing import Experiment, read_experiments
from pulmo.experiments.listing_table import format_experiments
from pulmo.experiments.project import Project
from pulmo.experiments.sync import sync_store
from pulmo.reporting.comparison import format_comparison, write_comparison
from pulmo.tracking.runs import evaluate_run, train_run
from pulmo.tracking.store import open_store
from pulmo.tracking.upkeep import close_run, list_left_open


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)


def experiment(name: str, auroc: float | None, state: str = "Success", error: str | None = None, **params: object):
    metrics = {} if auroc is None else {"val.auroc": auroc, "test.auroc": 1 - auroc, "test.f1": 0.5}
    flat = {f"train.{key}": value for key, value in {"lr": 0.001, "epochs": 8, **params}.items()}
    return Experiment(name, f"{name}-sha", "b" * 40, "2026-03-01T10:00:00", state, flat, metrics, error)


NOW = datetime(2026, 3, 1, 12, 30)
SEVERAL = [
    experiment("worse", 0.8, lr=0.01),
    experiment("broken", None, "Failed", "train.lr: input should be greater than 0, got -1 " + "and more words " * 5),
    experiment("best", 0.9, epochs=20),
    experiment("waiting", None, "Queued"),
    experiment("main", 0.85, "Commit"),
]


def test_the_table_is_best_first_on_validation_and_fits_100_columns():
    lines = format_experiments(SEVERAL, now=NOW).splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["best", "main", "worse", "broken"]
    assert max(map(len, lines)) <= 100
    assert "2h  0.900  0.100" in lines[2]
    assert lines[2].endswith("0.500  epochs=20")
    assert lines[3].endswith("0.500")
    assert "failed: train.lr: input should be greater than 0, got -1" in lines[5]
    assert lines[-1] == "main: train.epochs=8 train.lr=0.001"
    assert [line.split()[0] for line in format_experiments(SEVERAL, "test.auroc", now=NOW).splitlines()[2:4]] == [
        "worse",
        "main",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_table_folds_to_the_terminal(width):
    names = ("short", "a-name-of-forty-characters-that-says-it-all")
    several = [experiment(name, 0.9, arch=name * 3) for name in names] + [experiment(names[1] + "2", None, "Queued")]
    lines = format_experiments(several, "test.f1", width, now=NOW).splitlines()
    assert max(map(len, lines)) <= width
    assert "f1" in lines[1]
    assert all(any(line.split()[0] == item.name for line in lines) for item in several)


def test_params_that_all_share_and_hashes_are_not_shown():
    text = format_experiments([experiment("a", 0.9), experiment("b", 0.8, lr=0.1)], now=NOW)
    assert "epochs" not in text
    assert "-sha" not in text
    assert "bbbbbbb" not in text
    twins = [experiment("a", 0.9), experiment("a", 0.8)]
    assert "a (bbbbbbb)" in format_experiments(twins, now=NOW)


def test_params_with_the_same_end_keep_their_section():
    one = experiment("a", 0.9)
    other = Experiment(**{**vars(one), "name": "b", "params": one.params | {"train.seed": 1, "split.seed": 2}})
    assert "split.seed=2 train.seed=1" in format_experiments([one, one, other], now=NOW)


def test_an_unknown_metric_names_the_known_ones():
    assert "queued" in format_experiments([experiment("waiting", None, "Queued")])
    with pytest.raises(
        UserError, match=r"(?s)no experiment has the metric test\.auc\n\nhint: there are test\.auroc, test\.f1"
    ):
        format_experiments(SEVERAL, "test.auc")


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "> python x\nerror: data/films.csv not found\nERROR: failed to reproduce 'split'\n",
            "data/films.csv not found",
        ),
        ("Traceback\nKeyError: 'x'\nERROR: failed to reproduce 'train'\n\n", "failed to reproduce 'train'"),
        ("Killed\n", "Killed"),
        ("", "failed without a word"),
    ],
)
def test_the_reason_is_one_line_of_the_log(log, reason):
    assert failure_reason(log) == reason


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Experiments of two baselines: in the workspace, temporary, queued, failed; and what `queue run` said."""
    folder = make_toy(tmp_path_factory.mktemp("toys") / "toy")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "older", "-S", "train.lr=0.2")
    (folder / "note").write_text("a second baseline")
    commit(folder, "Second")
    for name, lr in (("good", 0.3), ("bad", -1), ("late", 0.4)):
        run(folder, "dvc", "exp", "run", "--queue", "-n", name, "-S", f"train.lr={lr}")
    said: list[str] = []
    with pytest.raises(UserError, match=r"1 of 3 experiments failed: bad: train\.lr: input should be") as end:
        queue.run_queue(Project(folder), 2, said.append, poll=1)
    run(folder, "dvc", "exp", "run", "--queue", "-n", "waiting", "-S", "train.lr=0.5")
    return folder, said, end.value.message


@pytest.mark.slow
def test_a_failed_queue_run_names_the_failed_and_shows_its_log(toy):
    _, said, error = toy
    assert "\n" not in error
    assert any("good: success" in line for line in said)
    assert any("bad: failed" in line for line in said)
    (log,) = [line for line in said if "last lines of bad" in line]
    assert "> python stage.py" in log


@pytest.mark.slow
def test_experiments_of_every_baseline_and_state_are_read(toy):
    folder, *_ = toy
    found = {item.name: item for item in read_experiments(Project(folder))}
    states = {name: item.state for name, item in found.items()}
    assert states == {"older": "Success", "good": "Success", "late": "Success", "bad": "Failed", "waiting": "Queued"}
    first, second = run(folder, "git", "log", "--format=%H", "--reverse").split()
    assert {item.baseline for item in found.values()} == {first, second}
    assert found["older"].baseline == first
    refs = [
        line.split() for line in run(folder, "git", "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    ]
    assert [commit for ref, commit in refs if ref.endswith("/older")] == [found["older"].revision]
    assert found["good"].params == {"train.lr": 0.3, "train.arch": "small"}
    assert found["good"].metrics == {"val.auroc": 1 / 3 + 0.3, "test.auroc": 1 / 3 + 0.3}
    assert found["bad"].error == "train.lr: input should be greater than 0, got -1"
    assert not found["bad"].metrics  # the file that git carries is there, but is not its own
    assert datetime.fromisoformat(found["good"].created) <= datetime.now()
    commits = [item for item in read_experiments(Project(folder), commits=True) if item.state == "Commit"]
    assert [(item.name, item.metrics["val.auroc"]) for item in commits] == [("main", 1 / 3 + 0.1)]


@pytest.mark.slow
def test_sync_gives_every_ended_experiment_one_run(toy, tmp_path):
    folder, *_ = toy
    with train_run(folder, {"train": {"lr": 0.7}}, {}):
        pass
    lines = list(sync_store(Project(folder)))
    *names, workspace = sorted(line.split()[1] for line in lines)
    assert names == ["bad", "good", "late", "older"]
    assert workspace.startswith("repro-"), "the results that stand in the workspace have theirs too"
    assert all(line.startswith("added") for line in lines)
    assert list(sync_store(Project(folder))) == []
    ours = {item.name: item for item in read_experiments(Project(folder))}
    client = open_store(folder).client
    runs = {found.info.run_name: found for found in open_store(folder).find_runs()}
    assert len(runs) == 6
    for name in ("good", "late", "older"):
        told, kept = ours[name], runs[name]
        assert kept.info.status == "FINISHED"
        assert kept.data.params == {key: str(value) for key, value in told.params.items()}
        assert {key: kept.data.metrics[key] for key in told.metrics} == told.metrics
        assert not [key for key in kept.data.metrics if key.endswith(".low")], "intervals stand in the report"
        points = client.get_metric_history(kept.info.run_id, "epoch/val_auroc")
        assert [(point.step, point.value) for point in points] == [
            (1, told.params["train.lr"]),
            (2, told.metrics["val.auroc"]),
        ]
        assert kept.data.tags["dvc.baseline"] == told.baseline
        assert kept.data.tags["mlflow.user"] == "tester"
        assert "pulmo.backfilled" in kept.data.tags
        assert kept.info.start_time == datetime.fromisoformat(told.created).timestamp() * 1000
        assert json.loads(open_store(folder).read_artifact(name, "evaluation.json") or "{}")["test"]
    assert runs["bad"].info.status == "FAILED"
    assert runs["bad"].data.tags["pulmo.error"] == ours["bad"].error
    run(folder, "dvc", "exp", "remove", "late")
    assert list(sync_store(Project(folder))) == []
    client.delete_run(runs["good"].info.run_id)
    (line,) = sync_store(Project(folder))
    assert line.split()[:2] == ["added", "good"]


TWO_STAGES = PIPELINE.replace(
    "  evaluate:",
    """  train:
    cmd: mkdir -p models && grep lr params.yaml > models/trained
    params: [train.lr, train.decay]
    outs: [models/trained]
  evaluate:""",
).replace("deps: [stage.py]\n    params: [train]", "deps: [stage.py, models/trained]\n    params: [train.arch]")


@pytest.mark.slow
def test_an_experiment_of_a_part_of_the_stages_has_no_metrics_of_its_own(tmp_path):
    folder = make_toy(tmp_path / "toy", pipeline=TWO_STAGES, params=PARAMS + "  decay: 0.00002\n")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "whole", "-S", "train.lr=0.3")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "trained", "-S", "train.lr=0.2", "train")
    run(folder, "dvc", "exp", "run", "--temp", "-n", "not-evaluated", "-S", "train.arch=large", "train")
    found = {item.name: (item.state, bool(item.metrics), item.error) for item in read_experiments(Project(folder))}
    part = ("Unfinished", False, "only a part of the stages ran")
    assert found == {"whole": ("Success", True, None), "trained": part, "not-evaluated": part}
    added = [line.split()[1] for line in sync_store(Project(folder))]
    assert added == ["whole", f"repro-{run(folder, 'git', 'rev-parse', 'HEAD')[:7]}"]


@pytest.mark.slow
def test_an_experiment_whose_model_is_not_in_the_cache_waits_for_it(tmp_path):
    package = "\nimport os\nos.makedirs('models/package', exist_ok=True)\nopen('models/package/w', 'w').write('w')\n"
    pipeline = PIPELINE.replace("outs:", "outs:\n      - models/package")
    folder = make_toy(tmp_path / "toy", STAGE + package, pipeline)
    run(folder, "dvc", "exp", "run", "--temp", "-n", "theirs", "-S", "train.lr=0.2")
    (folder / ".dvc/cache").rename(tmp_path / "cache")
    shutil.rmtree(folder / "models")
    line, own = sync_store(Project(folder))
    assert line.startswith("left out           theirs  (its model is not in the cache; `dvc exp pull REMOTE theirs`")
    assert own.startswith("left out           repro-")
    assert own.endswith("(its model is not in the cache; `dvc pull` brings it)")
    assert not open_store(folder).find_runs()


@pytest.mark.slow
def test_where_dvc_cannot_tell_its_own_words_are_given(tmp_path):
    with pytest.raises(UserError, match=r"(?s)`dvc exp show` failed in .*(git|SCM|DVC)"):
        read_experiments(Project(tmp_path))


OPEN = """
import sys, time
from pathlib import Path
from pulmo.tracking.runs import train_run
with train_run(Path(sys.argv[1]), {"a": 1}, {}) as run:
    run.log_epoch({"epoch": 1, "loss": 0.5})
    print(run.run_id, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_only_runs_that_are_surely_dead_are_closed(tmp_path):
    store = open_store(tmp_path)
    killed, living = (
        subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    ids = [process.stdout.readline().strip() for process in (killed, living)]
    with (
        train_run(tmp_path, {"a": 1}, {}) as recycled,
        train_run(tmp_path, {"a": 1}, {}) as elsewhere,
    ):
        recycled.set_tags({"pulmo.pid_started": time.time() - 86400})
        elsewhere.set_tags({"pulmo.host": "another", "pulmo.pid": 1, "pulmo.pid_started": time.time() - 5 * 3600})
        killed.kill()
        while killed.poll() is None and process_lives(killed.pid):
            time.sleep(0.05)
        try:
            gone, unknown = list_left_open(store)
            assert {item.info.run_id for item in gone} == {ids[0], recycled.run_id}
            assert [item.info.run_id for item in unknown] == [elsewhere.run_id]
            assert list_left_open(store, older_than=1000)[1]
            assert not list_left_open(store, older_than=0)[1]
            (dead,) = [item for item in gone if item.info.run_id == ids[0]]
            close_run(store, dead)
        finally:
            living.kill()
            living.wait()
    closed = store.client.get_run(ids[0])
    assert closed.info.status == "KILLED"
    assert closed.info.end_time >= store.client.get_metric_history(ids[0], "epoch/loss")[0].timestamp


BASELINE = "b" * 40


class Told(Dvc):
    """DVC that knows the experiments of a list, all at one commit whose stages have run."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.experiments: list[Experiment] = []
        self.commit = run(root, "git", "rev-parse", "HEAD").strip()

    def run(self, *arguments: str) -> str:
        assert arguments[:3] == ("exp", "show", "--json")
        shown = [self.show(item) for item in self.experiments]
        return json.dumps([{"rev": BASELINE, "name": "main", "experiments": shown}])

    def show(self, item: Experiment) -> dict:
        lr = {"params.yaml": {"data": {"train": {"lr": item.params["train.lr"]}}}}
        metrics = {"metrics.json": {"data": item.metrics}} if item.metrics else {}
        data = {"timestamp": item.created, "params": lr, "metrics": metrics}
        tip = {"rev": self.commit, "name": item.name, "data": data, "error": None}
        executor = {"state": item.state.lower()} if item.state in ("Failed", "Running") else None
        return {"name": item.name, "revs": [tip], "executor": executor}


@pytest.fixture
def known(tmp_path, empty_store) -> Project:
    """A project with a store, in which DVC knows the experiments of the list `project.dvc.experiments`."""
    empty_store(tmp_path)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_text("stages:\n  evaluate:\n    cmd: x\n")
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "add", "dvc.lock")
    run(tmp_path, "git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "x")
    return Project(tmp_path, Told(tmp_path))


def trained(root: Path, monkeypatch, name: str, pid: int = 2**22 - 1) -> str:
    """Id of a run that train ended well, and whose process is gone."""
    monkeypatch.setenv("DVC_EXP_NAME", name)
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", BASELINE)
    with train_run(root, {"a": 1}, {}) as run:
        run.set_tags({"pulmo.pid": pid, "pulmo.pid_started": 1})
    return run.run_id


def evaluated(root: Path, monkeypatch, name: str, metrics: dict[str, float]) -> str:
    record = {"run_id": trained(root, monkeypatch, name), "environment": {}}
    with evaluate_run(root, record, {"a": 1}, {}, []) as run:
        run.log_metrics(metrics)
    return run.run_id


def test_a_run_whose_evaluate_broke_or_never_began_does_not_stay_finished(known, monkeypatch):
    root = known.root
    states = {"broke": "Failed", "stopped": "", "part": "Unfinished", "between": "Running", "lost": "Running", "": ""}
    ids = {name: trained(root, monkeypatch, name) for name in states}
    ids["whole"] = evaluated(root, monkeypatch, "whole", {})
    known.dvc.experiments += [experiment(name, None, state) for name, state in states.items() if state]
    client = open_store(root).client
    client.set_terminated(ids["lost"], "FINISHED", int((time.time() - 3600) * 1000))
    assert sorted(line.split()[2:4] for line in sync_store(known)) == [
        ["FAILED", "broke"],
        ["KILLED", "lost"],
        ["KILLED", "stopped"],
    ]
    assert list(sync_store(known)) == []
    found = {name: client.get_run(run_id).info.status for name, run_id in ids.items()}
    ended = {"broke": "FAILED", "stopped": "KILLED", "lost": "KILLED"}
    assert found == {**dict.fromkeys(ids, "FINISHED"), **ended}


def test_a_replaced_experiment_gets_the_run_that_is_its_own(known, monkeypatch):
    root, dvc = known.root, known.dvc
    ids = {auroc: evaluated(root, monkeypatch, "x", experiment("x", auroc).metrics) for auroc in (0.7, 0.8)}
    theirs = evaluated(root, monkeypatch, "x", experiment("x", 0.6).metrics)
    client = open_store(root).client
    client.set_tag(theirs, "pulmo.host", "another")

    def marked() -> set[str]:
        return {run.info.run_id for run in open_store(root).find_runs("tags.`pulmo.replaced` = 'true'")}

    dvc.experiments[:] = [experiment("x", 0.8)]
    assert [line.split()[:2] for line in sync_store(known)] == [["replaced", "x"]]
    assert marked() == {ids[0.7]}
    assert list(sync_store(known)) == []
    dvc.experiments[:] = [experiment("x", 0.7)]  # a colleague's, pulled over ours
    assert sorted(line.split()[0] for line in sync_store(known)) == ["is", "replaced"]
    assert marked() == {ids[0.8]}
    dvc.experiments[:] = [experiment("x", 0.9)]
    assert [line.split()[:2] for line in sync_store(known)] == [["replaced", "x"], ["added", "x"]]
    assert marked() == set(ids.values())
    assert list(sync_store(known)) == []


def test_of_two_runs_that_a_killed_evaluate_left_the_older_is_replaced(known, monkeypatch):
    known.dvc.experiments[:] = [experiment("x", 0.8)]
    older, newer = (evaluated(known.root, monkeypatch, "x", experiment("x", 0.8).metrics) for _ in range(2))
    assert list(sync_store(known)) == [f"replaced           x  (run {older})"]
    (left,) = [run for run in open_store(known.root).find_runs() if "pulmo.replaced" not in run.data.tags]
    assert left.info.run_id == newer
    assert list(sync_store(known)) == []


def test_a_second_sync_waits_for_the_first(known):
    second = threading.Thread(target=lambda: list(sync_store(known)))
    with FileLock(known.root / ".dvc/tmp/pulmo-sync.lock"):
        second.start()
        second.join(0.5)
        assert second.is_alive()
    second.join(60)
    assert not second.is_alive()


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    tables = []
    for spread in (0.8, 1.6):
        logit = label * 2 - 1 + rng.normal(0, spread, 60)
        films = pd.DataFrame({"path": [f"test/{i}.jpeg" for i in range(60)], "label": label, "patient": range(60)})
        tables.append(
            films.assign(logit=logit, prob_pneumonia=1 / (1 + np.exp(-logit)), called=(logit > 0).astype(int))
        )
    return tables[0], tables[1]


def test_a_comparison_is_a_page_that_needs_no_network(pair, tmp_path):
    report = write_comparison(tmp_path / "comparison.json", ("sure", "unsure"), pair, (0.5, 0.25))
    page = (tmp_path / "comparison.html").read_text()
    assert "http" not in page
    assert page.count('src="data:image/png;base64,') == 1
    assert "<script" not in page
    kept = json.loads((tmp_path / "comparison.json").read_text())
    differing = [
        path for path, one, other in zip(pair[0].path, pair[0].called, pair[1].called, strict=True) if one != other
    ]
    assert [film["path"] for film in kept["disagreements"]] == differing
    for path in differing:
        assert f"<code>{path}</code>" in page
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    text = format_comparison(report)
    assert f"{len(differing)} films are called differently" in text
    assert "DeLong" in text
    assert kept["thresholds"] == [0.5, 0.25]
    assert ["threshold", "0.500", "0.250"] in [line.split() for line in text.splitlines()]
    assert "<td>threshold</td>" in page
    with pytest.raises(UserError, match="cannot be compared with itself"):
        write_comparison(tmp_path / "comparison.json", ("sure", "sure"), pair, (0.5, 0.5))


def test_a_comparison_names_params_and_shows_films_that_differ(pair, tmp_path):
    params = ({"train": {"lr": 0.001, "epochs": 8}}, {"train": {"lr": 0.0005, "epochs": 8}})
    images = {path: np.full((20, 20), 90, dtype=np.uint8) for path in pair[0].path}
    for _ in range(2):
        write_comparison(tmp_path / "comparison.json", ("sure", "unsure"), pair, (0.5, 0.25), params, images)
    page = (tmp_path / "comparison.html").read_text()
    assert re.search(r"train\.lr</code></td>\s*<td><code>0\.001</code></td>\s*<td><code>0\.0005", page)
    assert "train.epochs" not in page
    assert page.count('src="data:image/png;base64,') == 2
    assert "<td>AUROC</td>" in page
    write_comparison(tmp_path / "comparison.json", ("sure", "unsure"), pair, (0.5, 0.25), (params[0], params[0]))
    page = (tmp_path / "comparison.html").read_text()
    assert "all are the same" in page
    assert page.count('src="data:image/png;base64,') == 1
    assert not (tmp_path / "comparison_films.png").exists()


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        (("resnet18-head-draw-2", "resnet18-head-draw-3"), ["…t18-head-draw-2", "…t18-head-draw-3"]),
        (("0" * 40, "1" * 40), ["0" * 15 + "…", "1" * 15 + "…"]),
        (("short", "a-name-that-is-long"), ["short", "a-name-that-is-…"]),
        (("resnet18-1-head-3epochs", "resnet18-2-head-3epochs"), ["resnet18-1-head…", "resnet18-2-head…"]),
        (("a" * 20 + "1" + "b" * 20, "a" * 20 + "2" + "b" * 20), ["first", "second"]),
    ],
)
def test_long_names_are_cut_where_they_stay_different(pair, tmp_path, names, heads):
    text = format_comparison(write_comparison(tmp_path / "comparison.json", names, pair, (0.5, 0.5)))
    head = next(line for line in text.splitlines() if line.endswith("difference (95% interval)"))
    assert head.split()[:2] == heads
    assert max(map(len, text.splitlines())) <= 100
    assert max(map(len, heads)) <= 16


def test_a_comparison_of_one_class_has_no_curve_and_no_nan(pair, tmp_path):
    ill = tuple(table[table.label == 1].reset_index(drop=True) for table in pair)
    report = write_comparison(tmp_path / "comparison.json", ("a", "b"), ill, (0.5, 0.5))
    assert not (tmp_path / "comparison.png").exists()
    assert "nan" not in format_comparison(report)
    assert "All films are of one class" in (tmp_path / "comparison.html").read_text()


def test_queue_run_has_as_many_workers_as_asked_for_and_says_what_ctrl_c_leaves(tmp_path, monkeypatch):
    workers: list[int] = []

    class Interrupted(Dvc):
        def read_queue(self):
            return {"0" * 40: ("slow", "Queued")}, 0

        def start_workers(self, jobs: int) -> None:
            workers.append(jobs)
            raise KeyboardInterrupt

    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pulmo.experiments.project.Dvc", Interrupted)
    assert CliRunner().invoke(cli.app, ["queue", "run", "-j", "0"]).exit_code == 2
    done = CliRunner().invoke(cli.app, ["queue", "run", "--jobs", "3"])
    assert (done.exit_code, workers) == (1, [3])
    assert "dvc queue stop --kill" in str(
        done.exception.code if isinstance(done.exception, SystemExit) else done.output
    )
