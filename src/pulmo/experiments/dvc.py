"""DVC's command line, run in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pulmo.base.errors import UserError


def to_arguments(params: Mapping[str, Any]) -> list[str]:
    """Params by their flat names as arguments of `dvc exp run`: -S train.lr=0.001 and so on."""
    texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in params.items()}
    return [part for key, text in texts.items() for part in ("-S", f"{key}={text}")]


def run_dvc(root: Path, *arguments: str) -> str:
    """What a dvc command prints; UserError with DVC's own last line where it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        **dvc_command(root, *arguments), capture_output=True, text=True
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise UserError(
            f"`dvc {' '.join(arguments[:2])}` failed in {root}: {said[-1].removeprefix('ERROR: ')}",
            "cure that, or ask `pulmo doctor`",
        )
    return done.stdout


def dvc_command(root: Path, *arguments: str) -> dict[str, Any]:
    """Arguments of `subprocess.run` for the dvc of this environment, be it activated or not."""
    python = Path(sys.executable)  # not resolved: a virtual environment's python is a link
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"  # DVC's workers look for dvc and python there
    command = [str(python), "-m", "dvc", *arguments]
    return {"args": command, "cwd": root, "env": {**os.environ, "PATH": path}, "stdin": subprocess.DEVNULL}


def failure_reason(log: str) -> str:
    """Why an experiment failed, from its log: the stage's own message and, in brackets, its hint, else DVC's line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for start in ("error: ", "ERROR: "):
        if places := [place for place, line in enumerate(lines) if line.startswith(start)]:
            hint = next((line for line in lines[places[-1] + 1 :] if line.startswith("hint: ")), "")
            return lines[places[-1]].removeprefix(start) + (f" ({hint})" if hint else "")
    return lines[-1] if lines else "failed without a word"
