"""Commands about the champion: who becomes it, and who was it before."""

from typing import Annotated

import typer

from pulmo.base import paths
from pulmo.base.errors import UserError


def promote(
    experiment: Annotated[str, typer.Argument(help="experiment, commit, `workspace`, or name or id of an MLflow run")],
    force: Annotated[bool, typer.Option("--force", help="promote in spite of objections; needs --reason")] = False,
    reason: Annotated[str, typer.Option(help="why --force; it is recorded")] = "",
) -> None:
    """Make an experiment's model the champion, which `pulmo predict` asks, if it passes the gates and beats the old."""
    from pulmo.base.names import check_reference
    from pulmo.base.params_file import load_params
    from pulmo.base.tables import terminal_width
    from pulmo.experiments import promotion
    from pulmo.experiments.project import Project
    from pulmo.experiments.sync import list_without_run, sync_store
    from pulmo.experiments.workspace import stands_here
    from pulmo.metrics.estimates import estimate_text
    from pulmo.tracking import registry

    if force != bool(reason.strip()):
        raise UserError(
            "--force and --reason TEXT go together: what is forced is recorded with its reason", "give both, or neither"
        )
    check_reference(experiment)
    project = Project(paths.require_project())
    if project.dvc.find_commits(experiment) or (
        stands_here(project.root, experiment) and list_without_run(project, [])
    ):
        for line in sync_store(project):  # what DVC took from its cache has no run yet
            print(line, flush=True)
    candidate = promotion.find_candidate(project, experiment)
    if experiment not in (candidate.name, candidate.run_id):
        print(f"{experiment} holds the results of the run {candidate.name}")
    verdict = promotion.judge(project, candidate, load_params(project.root / paths.PARAMS).promote)
    print(promotion.format_gates(verdict.gates, terminal_width()))
    if verdict.champion and verdict.difference:
        print(f"validation AUROC less that of {verdict.champion.name}: {estimate_text(verdict.difference)}")
    version = promotion.promote(project, candidate, verdict, reason.strip())
    print(f"{candidate.name} is champion, version {version}  ->  models:/{registry.MODEL}@{registry.CHAMPION}")


def history() -> None:
    """List the champions, the last one first: who replaced whom, when, by whose hand and why."""
    from pulmo.experiments.project import Project
    from pulmo.tracking import registry

    project = Project(paths.require_project())
    versions = registry.read_versions(project.store) if project.has_store else []
    if not versions:
        raise UserError("there was no champion yet", "`pulmo promote EXP` makes one")
    for version in reversed(versions):
        tags = version.tags
        title = f"version {version.number}, {version.name}{' (champion)' if version.is_champion else ''}"
        print(f"{title}: {version.created:%Y-%m-%d %H:%M} UTC by {tags.get('by', 'unknown')}")
        print(f"    {tags.get('why', 'registered by other means')}")
        for key in ("replaced", "objections"):
            if text := tags.get(key):
                print(f"    {key}: {text}")
