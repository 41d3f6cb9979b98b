"""The program that torchrun starts in test_ranks.py: three trainings, two of which lose a process once, or with the
argument `turns` two whose epochs share the work in another way each. With `cut SECONDS`, in test_cut_network.py, one
that does not end, whose processes wait for one another for so long."""

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from test_training import IMAGES, QUICK, TARGETS, change
from torch import distributed

from pulmo.base.params import AugmentParams
from pulmo.base.process import run_stage
from pulmo.training import Films, Fitted, devices, fit, is_first_process
from pulmo.training.sharding import join, own_share, shard

# Neither divides by two processes, nor by two processes times a batch.
TRAIN = Films(IMAGES, np.arange(37), TARGETS[:37])
VAL = Films(IMAGES, np.arange(37, 60), TARGETS[37:])
# No random draws, and steady: where training blows up the last bit of a weight, no two ways to round agree.
STEADY = {"optimizer": "sgd", "augment": AugmentParams()}
SETTINGS = {
    "whole": change(
        QUICK,
        **STEADY,
        class_balance="sampler",
        schedule="plateau",
        patience=2,
        ema=0.5,
        early_epochs=1,
        early_size=24,
    ),
    "stored": change(QUICK, **STEADY, arch="resnet18", class_balance="weights", freeze="layer3", skip_easy=0.25),
    "sharded": change(QUICK, **STEADY, arch="resnet18", class_balance="weights", freeze="layer3", ema=0.5),
}
# Networks of timm, a transformer and one whose layers of batch norm hold their activation.
TURNING = {name: change(QUICK, **STEADY, arch=f"timm:test_{name}", ema=0.5, epochs=5) for name in ("vit", "byobnet")}
TURNS = ("alone", "fsdp", "ddp", "fsdp", "alone")  # a way for each epoch
KILLED = ("stored", "sharded")  # each in one of the lives that torchrun gives


def train(name: str, folder: Path, **places: object) -> Fitted:
    """Train with the settings of this name; `folder` carries it over a restart and takes its history."""
    settings = change((SETTINGS | TURNING)[name], **places)
    with mock.patch("torch.nn.Dropout.forward", lambda self, inputs: inputs):
        return fit(TRAIN, VAL, settings, resume=folder, history=folder / "history.csv")


def kill_after_two_epochs(history: Path) -> None:
    """Kill this process, as a machine that fails would, in the first of its lives."""
    while not history.exists() or len(history.read_text().splitlines()) < 3:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def count_held(folder: Path) -> None:
    """Write how many numbers this process holds of a network of 100 that is cut into shares."""
    net = torch.nn.Sequential(torch.nn.Linear(9, 8), torch.nn.Linear(9, 2))
    shard(net)
    own = {name: own_share(value) for name, value in net.state_dict().items()}
    held, whole = (sum(value.numel() for value in state.values()) for state in (own, join(net.state_dict())))
    (folder / f"held-{distributed.get_rank()}").write_text(f"{held} of {whole}")


def take_turns(name: str, folder: Path) -> None:
    """Train the epochs that two processes share, each from the checkpoint of the one before."""
    for epoch, way in enumerate(TURNS, 1):
        if way != "alone":
            train(name, folder, devices="auto", strategy=way, epochs=epoch)


def main() -> None:
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    if "cut" in sys.argv:
        devices.TIME_LIMIT = timedelta(seconds=int(sys.argv[-1]))
        run_stage(lambda: train("stored", root, devices="auto", num_nodes="auto", epochs=10_000))
        return
    if "turns" in sys.argv:
        for name in TURNING:
            take_turns(name, root / name)
        return
    for name in SETTINGS:
        life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        if KILLED[life : life + 1] == (name,) and not is_first_process():
            history = root / name / "history.csv"
            threading.Thread(target=kill_after_two_epochs, args=(history,), daemon=True).start()
        if (root / f"{name}.pth").exists():
            continue
        fitted = train(name, root / name, devices="auto", strategy="fsdp" if name == "sharded" else "ddp")
        if is_first_process():
            torch.save(fitted.model.state_dict(), root / f"{name}.pth")
    count_held(root)


if __name__ == "__main__":
    main()
