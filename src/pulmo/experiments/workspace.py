"""The results in the workspace beside those of HEAD, which in a fresh clone were made elsewhere and are in no cache."""

from pathlib import Path

from pulmo.base import paths
from pulmo.base.git import run_git
from pulmo.experiments.dvc import Dvc

WORKSPACE = "workspace"
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


def read_lock(root: Path, revision: str) -> str:
    """Text of dvc.lock at a commit or in the workspace; empty where there is none."""
    if revision == WORKSPACE:
        return (root / LOCK).read_text(encoding="utf-8") if (root / LOCK).is_file() else ""
    return run_git(root, "show", f"{revision}:./{LOCK}")


def list_lost_outputs(dvc: Dvc) -> list[str]:
    """The outputs of HEAD that neither git nor DVC's cache holds."""
    absent = dvc.list_uncached(read_lock(dvc.root, "HEAD"))
    return [path for path in absent if not run_git(dvc.root, "cat-file", "-t", f"HEAD:./{path}")]
