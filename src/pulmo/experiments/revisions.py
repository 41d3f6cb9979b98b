"""Outputs of another experiment: from the workspace, from DVC at any revision, or from an MLflow run."""

from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.tracking.store import read_artifact

WORKSPACE = "workspace"


def read_output(root: Path, path: str, revision: str) -> str:
    """Text of an output such as reports/metrics.json as `revision` left it.

    `revision` is `workspace`, a DVC experiment, anything git resolves, or the name or id of an MLflow run; UserError
    where it is none of them or its output is in no cache at hand.
    """
    if revision == WORKSPACE:
        file = root / path
        if not file.is_file():
            raise UserError(f"{path} is not in the workspace", "run `dvc repro` first")
        return file.read_text(encoding="utf-8")
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError
    from scmrepo.exceptions import SCMError

    try:
        return str(dvc.api.read(path, repo=str(root), rev=revision))
    except (DvcException, SCMError, DataIndexDirError, OSError) as error:
        reason = " ".join(str(error).split())[:150]
    text = read_artifact(root, revision, Path(path).name)
    if text is None:
        raise UserError(
            f"{path} of {revision!r} is found neither by DVC ({reason}) nor in an MLflow run of that name",
            "`dvc exp show` lists the experiments, `dvc pull` brings their outputs",
        )
    return text


def find_commits(root: Path, name: str) -> set[str]:
    """Commits of the experiments called `name` (`toy-*` are several names), whatever commit they vary."""
    return set(run_git(root, "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").split())


def check_history(root: Path) -> None:
    """UserError in a shallow clone, in which DVC runs experiments without a word and records none."""
    if run_git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise UserError(f"{root} is a shallow clone, in which DVC records no experiment", "run `git fetch --unshallow`")
