import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from small_project import run
from toy_project import STAGE, make_toy

from pulmo.base.errors import UserError
from pulmo.experiments.dvc import Dvc, Tasks
from pulmo.experiments.project import Project
from pulmo.experiments.queue import run_queue


class Script(Dvc):
    """DVC whose queue is a list of answers, the last one for ever."""

    def __init__(self, root: Path, *answers: Tasks, workers: int = 1) -> None:
        super().__init__(root)
        self.answers, self.workers, self.started = list(answers), workers, 0
        self.again: list[str] = []

    def read_queue(self) -> tuple[Tasks, int]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0], self.workers

    def start_workers(self, jobs: int) -> None:
        self.started += 1

    def run(self, *arguments: str) -> str:
        return "ERROR: broke\n" if "has-log" in arguments else ""

    def queue_again(self, task: str) -> bool:
        self.again.append(task)
        return task == "lost"


@pytest.fixture
def play(tmp_path):
    """Runs a script in a repository that holds the experiment `a`, and returns it with the error it ends in."""
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "x", "--allow-empty")
    run(tmp_path, "git", "update-ref", "refs/exps/aa/bb/a", "HEAD")

    def play(*answers: Tasks, workers: int = 1, **options: float) -> tuple[Script, str]:
        script = Script(tmp_path, *answers, workers=workers)
        with pytest.raises(UserError, match="experiments failed") as end:
            run_queue(Project(tmp_path, script), 1, lambda line: None, **{"poll": 0.001, "patience": 0.05, **options})
        return script, str(end.value)

    return play


def test_workers_that_hang_are_started_once_more_and_then_given_up(play):
    script, error = play({"1": ("a", "Running"), "2": ("b", "Queued")})
    assert script.started == 2
    assert "2 of 2 experiments failed" in error
    assert "a: still running without a process" in error
    assert "dvc queue kill b" in error


def test_workers_that_have_gone_are_started_again_at_once_and_as_often_as_that_moves_something(play):
    waits = [{"1": ("a", "Queued"), "2": ("b", "Queued")}] * 20
    moves = [{"1": ("a", "Failed"), "2": ("b", "Queued")}] * 20
    began = time.monotonic()
    script, _ = play(*waits, *moves, {"2": ("b", "Failed")}, workers=0, patience=60, gone=0.005)
    assert script.started == 3
    assert time.monotonic() - began < 10
    script, _ = play(*waits, {"2": ("b", "Failed")}, workers=1, patience=60, gone=0.005)
    assert script.started == 1, "workers that answer are left their time"


def test_what_ends_without_a_result_or_a_record_has_failed(play):
    _, error = play({"1": ("a", "Running"), "2": ("b", "Queued"), "3": ("c", "Queued")}, {"2": ("b", "Success")})
    assert "a: failed without a word" in error
    assert "b: ran, but DVC recorded nothing" in error
    assert "3 of 3" in error


def test_what_is_in_no_list_while_its_process_lives_has_not_failed(play, tmp_path):
    process = subprocess.Popen(["sleep", "0.5"])
    file = tmp_path / ".dvc/tmp/exps/run/has-log-1/has-log-1.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"pid": process.pid}))
    began = time.monotonic()
    _, error = play({"has-log": ("a", "Running")}, {}, patience=60)
    assert time.monotonic() - began > 0.4, "its log is read once it is whole"
    assert "a: broke" in error
    process.wait()


def test_what_is_queued_meanwhile_is_watched_too(play):
    answers = {"1": ("a", "Running")}, {"1": ("a", "Success"), "2": ("b", "Queued")}, {"2": ("b", "Failed")}
    _, error = play(*answers)
    assert "b: failed without a word" in error


def test_earlier_failures_are_not_those_of_this_run(tmp_path, capsys):
    script = Script(tmp_path, {"1": ("a", "Failed"), "2": ("b", "Success")}, workers=0)
    run_queue(Project(tmp_path, script), 1)
    assert "nothing is queued" in capsys.readouterr().out
    assert not script.started


def test_what_failed_without_a_log_is_queued_once_more_and_only_once(play):
    before = {"lost": ("a", "Running"), "has-log": ("b", "Failed"), "gone": ("c", "Queued")}
    after = {"lost": ("a", "Failed"), "has-log": ("b", "Failed"), "gone": ("c", "Failed")}
    again = {"lost": ("a", "Running")}
    script, error = play(before, after, again, {"lost": ("a", "Failed")})
    assert script.again == ["lost", "gone"]
    assert "2 of 2 experiments failed: a: failed without a word; c: failed without a word" in error
    script, error = play({"has-log": ("b", "Running")}, {"has-log": ("b", "Failed")})
    assert script.again == []
    assert "b: broke" in error


@pytest.mark.slow
def test_an_experiment_whose_checkout_could_not_be_made_runs_at_the_second_attempt(tmp_path):
    folder = make_toy(tmp_path / "toy")
    spoiled = folder / ".dvc/config.local"
    spoiled.write_text(f"[cache]\n    dir = {tmp_path}/ö\n", encoding="utf-8")  # DVC cannot copy that
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if "once more" in line:
            spoiled.rename(tmp_path / "config")

    run(folder, "dvc", "exp", "run", "--queue", "-n", "twice", "-S", "train.lr=0.2")
    run_queue(Project(folder), 1, report, poll=1)
    assert "twice failed before it began; it is queued once more" in said
    assert any("twice: success" in line for line in said)
    (tmp_path / "config").rename(spoiled)
    run(folder, "dvc", "exp", "run", "--queue", "-n", "never", "-S", "train.lr=0.3")
    with pytest.raises(UserError, match=r"never: failed before it began \(UnicodeEncodeError: 'ascii' codec"):
        run_queue(Project(folder), 1, lambda line: None, poll=1)


@pytest.mark.slow
def test_an_experiment_that_died_with_its_worker_runs_again(tmp_path):
    hold, stamp = tmp_path / "hold", tmp_path / "began"
    wait = f"import pathlib, time\nhold, stamp = map(pathlib.Path, ({str(hold)!r}, {str(stamp)!r}))\n"
    wait += "while hold.exists():\n    stamp.touch()\n    time.sleep(0.1)\n"
    folder = make_toy(tmp_path / "toy", stage=wait + STAGE)
    run(folder, "dvc", "exp", "run", "--queue", "-n", "again", "-S", "train.lr=0.2")
    hold.touch()
    Dvc(folder).start_workers(1)
    end = time.monotonic() + 60
    while not stamp.exists():
        assert time.monotonic() < end
        time.sleep(0.2)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
    hold.unlink()
    tasks, workers = Dvc(folder).read_queue()
    assert (list(tasks.values()), workers) == ([("again", "Running")], 0)
    said: list[str] = []
    run_queue(Project(folder), 1, said.append, poll=1)
    assert said[0] == "again died with its worker; it is queued once more"
    assert "again: success" in said[-1]


@pytest.mark.slow
def test_the_queue_of_dvc_is_read(tmp_path):
    folder = make_toy(tmp_path / "toy")
    dvc = Dvc(folder)
    assert dvc.read_queue() == ({}, 0)
    for name, lr in (("waits", 0.3), ("breaks", -1)):
        run(folder, "dvc", "exp", "run", "--queue", "-n", name, "-S", f"train.lr={lr}")
    tasks, workers = dvc.read_queue()
    assert (sorted(tasks.values()), workers) == ([("breaks", "Queued"), ("waits", "Queued")], 0)
    dvc.start_workers(1)
    seen: list[int] = []
    end = time.monotonic() + 120
    while {state for _, state in tasks.values()} & {"Queued", "Running"}:
        assert time.monotonic() < end, tasks
        time.sleep(1)
        tasks, workers = dvc.read_queue()
        seen.append(workers)
    assert sorted(tasks.values()) == [("breaks", "Failed"), ("waits", "Success")]
    assert max(seen) == 1
    dvc.run("queue", "stop")


@pytest.mark.slow
def test_where_there_is_no_dvc_its_own_words_are_given(tmp_path):
    with pytest.raises(UserError, match=r"(?s)DVC cannot read its queue in .*(DVC|git)"):
        Dvc(tmp_path).read_queue()
