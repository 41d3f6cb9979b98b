"""Outputs of another experiment: from the workspace, from DVC at any revision, or from an MLflow run."""

from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.base.names import check_reference
from pulmo.experiments.dvc import WORKSPACE
from pulmo.experiments.project import Project
from pulmo.experiments.workspace import KEEP, find_commit, has_own_results, list_lost_outputs


def read_output(project: Project, path: Path, revision: str) -> str:
    """Text of an output such as reports/metrics.json as `revision` left it.

    `revision` is `workspace`, a DVC experiment, anything git resolves, or the name or id of an MLflow run; UserError
    where it is none of them or its output is in no cache at hand.
    """
    check_reference(revision)
    if revision == WORKSPACE:
        file = project.root / path
        if not file.is_file():
            raise UserError(f"{path} is not in the workspace", "run `dvc repro` first")
        return file.read_text(encoding="utf-8")
    try:
        return project.dvc.read(path, revision)
    except UserError as error:
        reason = error.message
    if project.has_store and (text := project.store.read_artifact(revision, path.name)) is not None:
        return text
    head = find_commit(project.root, "HEAD")
    if head and find_commit(project.root, revision) == head and list_lost_outputs(project.dvc):
        own = f"{KEEP} puts your own results in their place; until then they are `{WORKSPACE}`"
        raise UserError(
            f"{path} of {revision!r} was made elsewhere, and is in no cache at hand",
            own if has_own_results(project.root) else "`dvc repro` makes results of your own",
        )
    raise UserError(
        f"{path} of {revision!r} is found neither by DVC ({reason}) nor in an MLflow run of that name",
        "`dvc exp show` lists the experiments, `dvc pull` brings their outputs",
    )
