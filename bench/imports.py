"""What each stage imports before it can begin, in seconds, and which of the heavy libraries are among it.

Run from the project's root: `python bench/imports.py`.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
HEAVY = ("torch", "torchvision", "lightning", "mlflow", "sklearn", "matplotlib", "scipy", "pandas", "cv2", "pydicom")
_NOTHING = "import sys"
_STAGE = "import runpy, sys; runpy.run_path(sys.argv[1])"
_NAMES = f"; print(*(name for name in {HEAVY!r} if name in sys.modules))"


def main() -> None:
    """Print seconds beyond Python's own start, and their ratio to importing torch alone."""
    stages = sorted((ROOT / "stages").glob("*.py"))
    commands = {"torch alone": ["import torch, sys"], **{file.stem: [_STAGE, str(file)] for file in stages}}
    for command in commands.values():
        run(command)  # compiles bytecode and fills the disk's cache
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        start = run([_NOTHING])[0]
        for name, command in commands.items():
            seconds[name].append(run(command)[0] - start)
    torch_alone = statistics.median(seconds["torch alone"])
    for name, command in commands.items():
        median = statistics.median(seconds[name])
        print(f"{name:12} {median:5.2f} s, {median / torch_alone:4.2f} of torch: {run(command)[1]}")


def run(command: list[str]) -> tuple[float, str]:
    """Seconds that the code takes in a fresh interpreter, and the heavy libraries that it has loaded."""
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", command[0] + _NAMES, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, ended.stdout.strip() or "nothing heavy"


if __name__ == "__main__":
    main()
