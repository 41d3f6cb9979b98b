"""Processes that would fill the cores take turns on them, and none waits for ever."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pulmo.base import cores
from pulmo.base.cores import Turns
from pulmo.base.process import usable_cores

WORK = """
import sys, time
from pathlib import Path
from pulmo.base import cores
cores.usable_cores = lambda: 2
turns = cores.Turns(int(sys.argv[2]), Path(sys.argv[1]), turn=0.05, patience=float(sys.argv[3]))
turns.take()
print("has", flush=True)
end = time.monotonic() + float(sys.argv[4])
while time.monotonic() < end:
    began = time.monotonic()
    time.sleep(0.01)
    print("step", began, time.monotonic(), flush=True)
    turns.give_way()
"""


def start(folder: Path, threads: int, seconds: float, patience: float = 60) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORK, str(folder), str(threads), str(patience), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_steps(process: "subprocess.Popen[str]") -> list[tuple[float, float]]:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    assert process.wait() == 0
    return [(float(line.split()[1]), float(line.split()[2])) for line in lines if line.startswith("step")]


def overlapping(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> int:
    return sum(began < end and start < ended for began, ended in one for start, end in other)


def wait_for(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def test_two_that_want_all_cores_take_turns_and_both_get_on(tmp_path):
    first = start(tmp_path, 2, 2)
    wait_for(first, "has")
    second = start(tmp_path, 2, 2)
    wait_for(second, "another stage has the cores: taking turns with it, 0.05 s each")
    steps = read_steps(first), read_steps(second)
    assert min(map(len, steps)) > 10
    assert overlapping(*steps) == 0
    assert max(later - earlier for (_, earlier), (later, _) in zip(steps[0], steps[0][1:], strict=False)) < 1


def test_those_that_fit_on_the_cores_together_compute_at_once(tmp_path):
    both = [start(tmp_path, 1, 1.5) for _ in range(2)]
    assert overlapping(*map(read_steps, both)) > 10


def test_the_cores_of_a_killed_process_are_free(tmp_path):
    killed = start(tmp_path, 2, 60)
    wait_for(killed, "has")
    killed.kill()
    killed.wait()
    turns = Turns(1, tmp_path, patience=60)
    began = time.monotonic()
    turns.take()
    assert time.monotonic() - began < 5


def test_a_process_that_was_stopped_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    stopped = Turns(2, tmp_path)
    stopped.take()
    said: list[str] = []
    turns = Turns(2, tmp_path, patience=0.05, report=said.append)
    turns.take()
    assert said == ["another stage has the cores: taking turns with it, 2 s each"]


def test_nobody_gives_way_where_nobody_waits_or_outside_of_turns(tmp_path, monkeypatch):
    cores.give_way()
    turns = Turns(1, tmp_path, turn=0)
    turns.take()
    monkeypatch.setattr(turns, "leave", lambda: pytest.fail("left the cores to nobody"))
    turns.give_way()


def test_a_block_leaves_the_cores_when_it_ends():
    with pytest.raises(ValueError, match="broken"), cores.taking_turns(1000):
        raise ValueError("broken")
    turns = Turns(usable_cores(), report=lambda text: pytest.fail(text))
    turns.take()
    turns.leave()


def test_other_programs_on_the_cores_are_told_with_what_would_lose_less(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    said: list[str] = []
    for busy in (10.0, 90.0):
        monkeypatch.setattr(cores, "_percent_busy", lambda busy=busy: busy)
        for threads in (1, 2):
            with cores.taking_turns(threads, said.append):
                pass
    (line,) = said
    assert line.startswith("other programs use 90% of the cores: 2 threads")
    assert "OMP_NUM_THREADS=1" in line


def test_a_folder_that_vanishes_or_cannot_be_made_costs_the_turns_and_not_the_stage(tmp_path):
    lines: list[str] = []
    turns = Turns(1, tmp_path / "cores", turn=0, report=lines.append)
    turns.take()
    shutil.rmtree(tmp_path / "cores")
    turns.give_way()
    turns.leave()
    turns.take()
    assert lines == []
    (tmp_path / "file").write_text("in the way")
    blocked = Turns(1, tmp_path / "file", report=lines.append)
    blocked.take()
    blocked.give_way()
    assert lines == ["no turns with other stages (File exists)"]
