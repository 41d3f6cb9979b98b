"""The command that searches for better params."""

from pathlib import Path
from typing import Annotated

import typer

from pulmo.base import paths


def sweep(
    file: Annotated[Path, typer.Argument(help="YAML with space, budget and pruning, such as sweeps/small.yaml")],
    storage: Annotated[str, typer.Option(help="database to share with other checkouts, such as postgresql://...")] = "",
) -> None:
    """Search params by validation AUROC; each trial is an experiment. After a stop, the same command goes on.

    With --storage, the same command in clones on other machines takes part, and every one gets all experiments.
    """
    from pulmo.base.files import read_json
    from pulmo.base.tables import align, render, terminal_width
    from pulmo.experiments.exchange import find_git_remote
    from pulmo.experiments.project import Project
    from pulmo.experiments.sweep import run_sweep

    project = Project(paths.require_project())
    folder = run_sweep(project, file, storage)
    report = read_json(folder / "sweep.json")
    if report["importances"]:
        rows = [[key, f"{share:.2f}", "#" * round(40 * share)] for key, share in report["importances"].items()]
        print(render(["", "the AUROC on validation depends on", align(rows)], terminal_width()))
    counts = ", ".join(f"{number} {state}" for state, number in report["trials"].items())
    print(f"\ntrials: {counts}  ->  {folder}/history.png, and the run {folder.name} in MLflow")
    print(f"best: validation AUROC {report['val_auroc']:.4f}, in {report['checkout']}")
    elsewhere = report["checkout"] != project.address
    outputs = f"dvc exp pull {find_git_remote(project.root)} {report['best']} && " if elsewhere else ""
    print(f"\n    {outputs}dvc exp apply {report['best']}")
