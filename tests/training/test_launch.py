"""Who starts the processes of a training, read from what torchrun and Slurm put into the environment."""

import os
import sys

import pytest

from pulmo.base.errors import UserError
from pulmo.base.params import TrainParams
from pulmo.training import is_first_process, resolve_settings, start_processes
from pulmo.training.devices import open_fabric

ON_CPU = TrainParams(device="cpu", precision="fp32")
AUTO = ON_CPU.model_copy(update={"devices": "auto", "num_nodes": "auto"})
TORCHRUN = {"TORCHELASTIC_RUN_ID": "7", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}
SRUN = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "6",
    "SLURM_NTASKS_PER_NODE": "3",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def counts(settings: TrainParams) -> tuple[object, object]:
    resolved = resolve_settings(settings)
    assert resolve_settings(resolved) == resolved
    return resolved.devices, resolved.num_nodes


def set_variables(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_launcher_says_how_many_devices_and_nodes_there_are(monkeypatch):
    assert counts(AUTO) == (1, 1)
    assert is_first_process()
    with monkeypatch.context() as patch:
        set_variables(patch, TORCHRUN)
        assert counts(AUTO) == (4, 2)
        assert not is_first_process()
    set_variables(monkeypatch, SRUN)
    assert counts(AUTO) == (3, 2)
    assert is_first_process()


def test_a_batch_script_of_slurm_is_one_process(monkeypatch):
    set_variables(monkeypatch, {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"})
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    assert counts(AUTO) == (1, 1)
    assert open_fabric(resolve_settings(AUTO)).world_size == 1


@pytest.mark.parametrize(
    ("variables", "settings", "problem"),
    [
        (TORCHRUN, {"devices": 2}, r"train\.devices is 2, but the processes were started for 4\n\nhint: .*torchrun"),
        (TORCHRUN, {"num_nodes": 3}, r"train\.num_nodes is 3, but the processes were started for 2"),
        ({}, {"num_nodes": 2}, r"train\.num_nodes is 2, but the processes were started for 1"),
        (TORCHRUN | {"TORCHELASTIC_MAX_RESTARTS": "1"}, {}, "hint: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"),
        (TORCHRUN | {"WORLD_SIZE": "7"}, {}, "7 processes were started, 4 of them on this node"),
        ({name: value for name, value in SRUN.items() if "PER" not in name}, {}, "hint: .*--ntasks-per-node"),
    ],
)
def test_other_numbers_than_asked_for_are_refused(monkeypatch, variables, settings, problem):
    set_variables(monkeypatch, variables)
    with pytest.raises(UserError, match=f"(?s){problem}"):
        resolve_settings(AUTO.model_copy(update=settings))


def test_several_devices_of_one_machine_are_started_by_torchrun(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["stages/train.py", "--quietly"])
    start_processes(resolve_settings(ON_CPU))
    assert not started
    two = resolve_settings(ON_CPU.model_copy(update={"devices": 2}))
    start_processes(two)
    assert started[0][1:3] == ["-m", "torch.distributed.run"]
    assert started[0][-3:] == ["--nproc-per-node=2", "stages/train.py", "--quietly"]
    with pytest.raises(UserError, match=r"train\.devices is 2, but this process was started alone"):
        open_fabric(two)
    set_variables(monkeypatch, TORCHRUN)
    start_processes(resolve_settings(AUTO))
    assert len(started) == 1
