"""Training in several processes: they reach what one reaches, and survive the loss of one."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from ranks import SETTINGS, TURNING, train

from pulmo.training import Fitted

CLOSE = 1e-4  # relative; sums over two processes round otherwise than sums over one


def run_both(*arguments: str, restarts: int = 0) -> str:
    """The output of two processes that train."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = [str(Path(__file__).with_name("ranks.py")), *arguments]
    variables = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command = [*torchrun, f"--max-restarts={restarts}", *program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def assert_same(folder: Path, weights: dict[str, torch.Tensor], alone: Fitted) -> None:
    """Each epoch in the folder's history, and the weights, are within rounding those of one process alone."""
    rows = pd.read_csv(folder / "history.csv").drop(columns="seconds").to_dict("records")
    assert len(rows) == len(alone.history)
    for row, expected in zip(rows, alone.history, strict=True):
        assert row == pytest.approx({key: expected[key] for key in row}, rel=CLOSE), folder.name
    for key, value in alone.model.state_dict().items():
        assert torch.allclose(weights[key], value, rtol=CLOSE, atol=CLOSE), (folder.name, key)


@pytest.mark.slow
def test_two_processes_reach_what_one_reaches_though_one_of_them_is_killed_twice(tmp_path):
    for name in SETTINGS:
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-alone").mkdir()
    said = run_both(str(tmp_path), restarts=2)
    assert said.count("resuming after epoch") == 2
    assert [(tmp_path / f"held-{rank}").read_text() for rank in (0, 1)] == ["50 of 100"] * 2
    for name in SETTINGS:
        assert_same(tmp_path / name, torch.load(tmp_path / f"{name}.pth"), train(name, tmp_path / f"{name}-alone"))
    goes_on = train("sharded", tmp_path / "sharded").model.state_dict()  # alone, from the checkpoint of both
    assert all(torch.equal(goes_on[key], value) for key, value in torch.load(tmp_path / "sharded.pth").items())


@pytest.mark.slow
def test_a_training_goes_on_with_another_strategy_and_number_of_processes(tmp_path):
    for name in TURNING:
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-alone").mkdir()
        train(name, tmp_path / name, epochs=1)
    run_both(str(tmp_path), "turns")
    for name in TURNING:
        last = train(name, tmp_path / name)
        assert_same(tmp_path / name, last.model.state_dict(), train(name, tmp_path / f"{name}-alone"))
