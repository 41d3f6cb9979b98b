"""Commands about experiments: which there are, what came out, what differs between two; and repairs."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pulmo.base import paths
from pulmo.base.errors import UserError

if TYPE_CHECKING:
    from pulmo.experiments.project import Project

queue = typer.Typer(no_args_is_help=True, help="Run DVC's queue of experiments.")


def summary() -> None:
    """Show what the last `dvc repro` came to: test metrics with their intervals, the reports, and what to try next."""
    from pulmo.base.files import read_json
    from pulmo.experiments.workspace import KEEP, has_own_results

    root = paths.project_root()
    if not (file := root / paths.EVALUATION).exists():
        raise UserError(f"{paths.EVALUATION} not found", "run `dvc repro` in the root of the project first")
    print(_summarise(read_json(file)))
    print(f"\nReports:  {paths.CARD_HTML}  {paths.EVALUATION}  {paths.PLOTS}/  {paths.PREDICTIONS}")
    print("Next:     source .venv/bin/activate")
    print("          dvc exp run -S train.lr=0.0005   run a variant as an experiment")
    print("          pulmo experiments                compare experiments, best first")
    print("          dvc plots show                   ROC, precision-recall, curves, in the browser")
    print("          pulmo ui                         every run, in MLflow's page")
    print("          pulmo predict FILM               ask the model about a film")
    if has_own_results(root):
        print(f"Keep it:  {KEEP.strip('`')}   dvc.lock and {paths.METRICS} then tell of your results")


def _summarise(report: Any) -> str:
    from pulmo.base.tables import align, render, terminal_width
    from pulmo.metrics.decisions import OperatingPoint
    from pulmo.metrics.estimates import Estimate, estimate_text, probability_text
    from pulmo.reporting.saved import read_part

    point = read_part(report, OperatingPoint, "locked", "operating_point")
    films, patients, ill = (read_part(report, int, "test", key) for key in ("films", "patients", "pneumonia"))
    names = ("auroc", "accuracy", "sensitivity", "specificity", "f1")
    rows = [[name, estimate_text(read_part(report, Estimate, "test", "metrics", name))] for name in names]
    locked = f"on prob_pneumonia, locked on validation ({point.policy})"
    rows.append(["threshold", f"{probability_text(point.threshold)} {locked}"])
    about = f"{films} films of {patients} patients, {ill} with PNEUMONIA"
    return render(["", f"Test set: {about}, in parentheses 95% intervals", align(rows)], terminal_width())


def compare(
    first: Annotated[
        str, typer.Argument(help="experiment, commit, MLflow run, or `workspace` (the files as they are)")
    ],
    second: Annotated[str, typer.Argument(help="another one; differences are second less first")],
) -> None:
    """Compare two experiments on the same test films: paired bootstrap, DeLong, McNemar, where they disagree."""
    from pulmo.base.tables import terminal_width
    from pulmo.experiments.project import Project
    from pulmo.experiments.revisions import read_output
    from pulmo.metrics.comparison import pair_predictions, read_predictions
    from pulmo.reporting.comparison import format_comparison, write_comparison
    from pulmo.reporting.saved import read_part

    project = Project(paths.project_root())
    if any(project.dvc.find_commits(name) for name in (first, second)):
        _add_runs(project)
    a, b = (read_predictions(read_output(project, paths.PREDICTIONS, name)) for name in (first, second))
    pair = pair_predictions(a[a.split == "test"], b[b.split == "test"])
    one, other = (
        read_part(
            json.loads(read_output(project, paths.EVALUATION, name)), float, "locked", "operating_point", "threshold"
        )
        for name in (first, second)
    )
    params = _read_params(project, first, second)
    target, names = project.root / paths.COMPARISON, (first, second)
    report = write_comparison(target, names, pair, (one, other), params, _read_images(project.root))
    print(format_comparison(report, terminal_width()))
    print(f"->  {paths.COMPARISON.with_suffix('.html')}, {paths.COMPARISON}")


def _read_params(project: "Project", first: str, second: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The params of both; None where one of them is a run of MLflow alone."""
    from pulmo.base.yaml import parse_yaml
    from pulmo.experiments.revisions import read_output

    try:
        one, other = (parse_yaml(read_output(project, paths.PARAMS, name), paths.PARAMS) for name in (first, second))
    except UserError:
        return None
    return one, other


def _read_images(root: Path) -> dict[str, Any]:
    """The preprocessed films of the workspace by path, as far as they are there."""
    from pulmo.films.rows.processed import open_images, read_index

    try:
        images = open_images(root / paths.IMAGES)
        return {path: images[row] for row, path in enumerate(read_index(root / paths.INDEX).path)}
    except UserError:
        return {}


def experiments(
    sort: Annotated[str, typer.Option(help="metric to sort by, such as test.auroc")] = "val.auroc",
) -> None:
    """List all experiments, best first on validation: their metrics, and the params in which they differ."""
    from pulmo.base.tables import terminal_width
    from pulmo.experiments.dvc import WORKSPACE
    from pulmo.experiments.listing import read_experiments
    from pulmo.experiments.listing_table import format_experiments
    from pulmo.experiments.project import Project
    from pulmo.experiments.sync import list_without_run
    from pulmo.experiments.workspace import KEEP, list_lost_outputs

    project = Project(paths.require_project())
    listed = read_experiments(project, commits=True)
    print(format_experiments(listed, sort, terminal_width()))
    if any(item.name == WORKSPACE for item in listed):
        print(f"\nworkspace: results that are not committed; {KEEP} keeps them")
        if list_lost_outputs(project.dvc):
            print("HEAD: made elsewhere, with outputs that are in no cache here")
    if all(item.state in ("Commit", "Workspace") for item in listed):
        print("\nno experiment yet; `dvc exp run -S train.lr=0.0005` makes one")
    if absent := list_without_run(project, listed):
        print(f"\nwithout a run in MLflow: {', '.join(absent)}; `pulmo sync` adds it")


def sync(
    older_than: Annotated[
        float | None, typer.Option(help="also end runs begun on other machines so many hours ago")
    ] = None,
) -> None:
    """Bring MLflow up to what DVC has: add missing runs, end those that a kill left open. Safe to repeat."""
    from pulmo.experiments.project import Project
    from pulmo.experiments.sync import sync_store

    changes = 0
    for line in sync_store(Project(paths.require_project()), older_than):
        print(line, flush=True)
        changes += 1
    if not changes:
        print("every experiment has its run, and no run is left open")


@queue.command("run")
def run_queued(jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="experiments at a time")] = 1) -> None:
    """Run all queued experiments to their end; exit code 1 and the reasons when one fails."""
    from pulmo.experiments.project import Project
    from pulmo.experiments.queue import run_queue

    project = Project(paths.require_project())
    try:
        run_queue(project, jobs, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        sys.exit(
            "interrupted; the workers go on, and the same command watches them again; `dvc queue stop --kill` ends "
            "them and what they run"
        )
    except UserError:
        _add_runs(project)
        raise
    _add_runs(project)


def _add_runs(project: "Project") -> None:
    """Give the experiments that DVC took from its cache, or that failed early, their runs."""
    from pulmo.experiments.sync import sync_store

    try:
        for line in sync_store(project):
            print(line, flush=True)
    except UserError as error:  # must not hide what the command itself has to say
        print(f"the runs in MLflow are not complete: {error.message}; `pulmo sync` adds them", file=sys.stderr)


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="also read every output, and its copy in DVC's cache")] = False,
) -> None:
    """Look for what keeps this checkout from working: a line a check, with the cure; exit code 1 for an error."""
    from pulmo.experiments.doctor import CHECKS, DEEP, examine
    from pulmo.experiments.project import Project

    failed = False
    for name, (state, text, cure) in examine(Project(paths.project_root()), CHECKS | DEEP if deep else CHECKS):
        print(f"{state:8} {name:12} {text}" + (f"  ->  {cure}" if cure else ""), flush=True)
        failed |= state == "error"
    if failed:
        sys.exit(1)
