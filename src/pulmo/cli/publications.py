"""Commands that run published recipes."""

import signal
import sys
from typing import Annotated

import typer

from pulmo.base import paths
from pulmo.base.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Run published recipes and compare them.")

Settings = Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value for params.yaml, repeatable")]


@app.command("list")
def list_recipes() -> None:
    """Names of the recipes."""
    from pulmo.experiments import recipes

    print("\n".join(recipes.list_recipes(paths.require_project() / "recipes")))


@app.command("run")
def run_recipes(
    names: Annotated[list[str] | None, typer.Argument(help="recipes; all where none is named")] = None,
    protocol: Annotated[str, typer.Option(help="published, honest or both")] = "both",
    settings: Settings = None,
) -> None:
    """Run recipes as DVC experiments and print the leaderboard."""
    from pulmo.base.process import end_by_exception
    from pulmo.base.tables import terminal_width
    from pulmo.experiments.leaderboard import LEADERBOARD, read_entries, show_leaderboard
    from pulmo.experiments.project import Project
    from pulmo.experiments.recipes import NotRun, RunError, choose_runs, run_recipe

    if protocol not in ("published", "honest", "both"):
        raise UserError(f"there is no --protocol {protocol}", "choose published, honest or both")
    end_by_exception(signal.SIGTERM, signal.SIGHUP)  # DVC and its stage would go on alone
    project = Project(paths.require_project())
    runs = choose_runs(project.root / "recipes", names or [], protocol)
    errors: list[RunError] = []
    for name, honest in runs:
        try:
            run_recipe(project, name, honest, settings or [])
        except RunError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            errors.append(error)
    if entries := read_entries(project.root):
        print(f"\n{show_leaderboard(entries, terminal_width())}\n\n->  {LEADERBOARD}")
    left_out_alone = len(errors) == len(runs)
    if failed := [error.message for error in errors if left_out_alone or not isinstance(error, NotRun)]:
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}", "what each one needs stands above"
        )
