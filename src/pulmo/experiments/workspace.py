"""The results in the workspace beside those of HEAD, which in a fresh clone were made elsewhere and are in no cache."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pulmo.base import paths
from pulmo.base.git import run_git
from pulmo.experiments.dvc import WORKSPACE, Dvc

LOCK = Path("dvc.lock")
KEEP = '`git commit -am "My first results"`'


def has_own_results(root: Path) -> bool:
    """True where the workspace holds results that HEAD does not."""
    return bool(run_git(root, "status", "--porcelain", "--", str(LOCK), str(paths.METRICS)))


def equals(root: Path, revision: str) -> bool:
    """True where the workspace holds the results of a commit, as `dvc exp run` and `dvc exp apply` leave it."""
    return not run_git(root, "diff", "--name-only", revision, "--", str(LOCK))


def find_commit(root: Path, revision: str) -> str:
    """Hash of the commit that a revision, such as a branch, names; empty where git knows none."""
    return run_git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def stands_here(root: Path, revision: str) -> bool:
    """True where a revision is `workspace` or the commit that is checked out."""
    commit = find_commit(root, revision)
    return revision == WORKSPACE or (commit != "" and commit == find_commit(root, "HEAD"))


def read_stages(root: Path, revision: str) -> list[dict[str, Any]]:
    """The stages in dvc.lock, at a commit or in the workspace; none where there is no dvc.lock."""
    from dvc.utils.serialize import parse_yaml

    if revision == WORKSPACE:
        text = (root / LOCK).read_text(encoding="utf-8") if (root / LOCK).is_file() else ""
    else:
        text = run_git(root, "show", f"{revision}:./{LOCK}")
    lock = parse_yaml(text, str(LOCK)) or {}
    return list(lock.get("stages", {}).values())


def output_hashes(stages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """DVC's hash of each output of some stages, by its path."""
    return {out["path"]: str(out.get("md5", "")) for stage in stages for out in stage.get("outs", [])}


def list_lost_outputs(dvc: Dvc) -> list[str]:
    """The outputs of HEAD that neither git nor DVC's cache holds."""
    absent = dvc.list_uncached(output_hashes(read_stages(dvc.root, "HEAD")))
    return [path for path in absent if not run_git(dvc.root, "cat-file", "-t", f"HEAD:./{path}")]
