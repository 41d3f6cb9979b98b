"""Git, asked by its command line."""

import subprocess
from pathlib import Path

_DVC_WRITES = {"dvc.lock", "params.yaml", "reports/metrics.json"}


def git_state(folder: Path) -> tuple[str, bool]:
    """Commit hash and whether tracked files differ from it; what DVC itself rewrites aside."""
    head = run_git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = {line[3:].strip('"') for line in run_git(folder, "status", "--porcelain", "-uno").splitlines()}
    return head or "no commit", bool(changed - _DVC_WRITES)


def run_git(folder: Path, *arguments: str) -> str:
    """The output of a git command, without the last line break; empty where it fails."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True).stdout.rstrip("\n")
