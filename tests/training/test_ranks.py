"""Training in several processes: they reach what one reaches, and survive the loss of one."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from ranks import SETTINGS, train

CLOSE = 1e-4  # relative; sums over two processes round otherwise than sums over one


@pytest.mark.slow
def test_two_processes_reach_what_one_reaches_though_one_of_them_is_killed_twice(tmp_path):
    for name in SETTINGS:
        (tmp_path / name).mkdir()
    program = [str(Path(__file__).with_name("ranks.py")), str(tmp_path)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    variables = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command = [*torchrun, "--max-restarts=2", *program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("resuming after epoch") == 2
    assert [(tmp_path / f"held-{rank}").read_text() for rank in (0, 1)] == ["50 of 100"] * 2
    for name in SETTINGS:
        alone = tmp_path / f"{name}-alone"
        alone.mkdir()
        fitted = train(name, alone)
        rows = pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds").to_dict("records")
        assert len(rows) == len(fitted.history)
        for row, expected in zip(rows, fitted.history, strict=True):
            assert row == pytest.approx({key: expected[key] for key in row}, rel=CLOSE), name
        weights = torch.load(tmp_path / f"{name}.pth")
        for key, value in fitted.model.state_dict().items():
            assert torch.allclose(weights[key], value, rtol=CLOSE, atol=CLOSE), (name, key)
    goes_on = train("sharded", tmp_path / "sharded").model.state_dict()  # alone, from the checkpoint of both
    assert all(torch.equal(goes_on[key], value) for key, value in torch.load(tmp_path / "sharded.pth").items())
