"""What a second training at the same time costs the first, and what it would cost without turns on the cores.

Run from the project's root: `python bench/side_by_side.py`. About five minutes on two quiet cores.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from _films import describe

from pulmo.base.process import keep_memory, usable_cores

ROUNDS = 3
FILMS, SIZE, EPOCHS = 320, 128, 3  # batches as the embedded dataset has them
WAYS = {"alone": 1, "side by side": 2, "side by side, one thread each": 2}
WITHOUT = "side by side without turns"  # so slow that it gets one epoch, in one round


def main() -> None:
    """Print ratios of the time until all have ended, and of the processor's seconds that they took."""
    print(f"{FILMS} films of {SIZE} px, ResNet-18, {EPOCHS} epochs, {usable_cores()} cores; seconds:")
    rounds: list[dict[str, tuple[float, float, set[str]]]] = []
    for turn in range(ROUNDS):
        rounds.append({way: run_together(way, processes, EPOCHS) for way, processes in WAYS.items()})
        told = ", ".join(f"{way} {seconds:.1f} ({used:.0f} of CPU)" for way, (seconds, used, _) in rounds[-1].items())
        print(f"  round {turn + 1}: {told}", flush=True)
    for way in list(WAYS)[1:]:
        seconds, used = ([found[way][part] / found["alone"][part] for found in rounds] for part in (0, 1))
        print(f"two {way} / one alone: {describe(seconds)}, of CPU seconds {describe(used)}")
    same = all(found["side by side"][2] == found["alone"][2] for found in rounds)
    print(f"side by side {'the same digits as' if same else 'OTHER DIGITS than'} alone; at most 2.3 times is wanted")
    alone, hindered = run_together("alone", 1, 1)[0], run_together(WITHOUT, 2, 1)[0]
    print(f"two {WITHOUT} / one alone, one epoch: {hindered / alone:.1f}")


def run_together(way: str, processes: int, epochs: int) -> tuple[float, float, set[str]]:
    """Seconds of the trainings from the first step of the first to the last of the last, the processor's seconds that
    they took, and their losses."""
    variables = {**os.environ, **({"OMP_NUM_THREADS": "1"} if "one thread" in way else {})}
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        command = [sys.executable, __file__, way, str(gate), str(epochs)]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, env=variables, text=True) for _ in range(processes)
        ]
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()  # it has imported everything
        gate.touch()
        ended = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    began, last = min(one["began"] for one in ended), max(one["ended"] for one in ended)
    return last - began, sum(one["used"] for one in ended), {one["loss"] for one in ended}


def train(way: str, gate: Path, epochs: int) -> None:
    """Train once the gate is there, and print when, and with what loss."""
    from pulmo.base.params import TrainParams
    from pulmo.model import device
    from pulmo.training import Films, fit

    keep_memory()
    if way == WITHOUT:
        device.taking_turns = lambda threads: nullcontext()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (FILMS, SIZE, SIZE), dtype=np.uint8)
    films = Films(images, np.arange(FILMS), np.arange(FILMS) % 2)
    print("ready", flush=True)
    while not gate.exists():
        time.sleep(0.01)
    began, used = time.time(), time.process_time()
    fitted = fit(films, films, TrainParams(epochs=epochs, device="cpu", arch="resnet18"), progress=False)
    loss = repr([row["train_loss"] for row in fitted.history])
    print(json.dumps({"began": began, "ended": time.time(), "used": time.process_time() - used, "loss": loss}))


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 1 else main()
