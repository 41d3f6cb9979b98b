"""Commands that run published recipes."""

import shutil
import sys
from typing import Annotated

import typer

from pulmo.base.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Run published recipes and compare them.")

Settings = Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value for params.yaml, repeatable")]


@app.command("list")
def list_recipes() -> None:
    """Names of the recipes."""
    from pulmo.base import paths
    from pulmo.experiments import recipes

    print("\n".join(recipes.list_recipes(paths.project_root() / "recipes")))


@app.command("run")
def run_recipe(
    names: Annotated[list[str] | None, typer.Argument(help="recipes; all where none is named")] = None,
    protocol: Annotated[str, typer.Option(help="published, honest or both")] = "both",
    settings: Settings = None,
) -> None:
    """Run recipes as DVC experiments and print the leaderboard."""
    from pulmo.base import paths
    from pulmo.experiments import recipes

    if protocol not in ("published", "honest", "both"):
        raise UserError(f"there is no --protocol {protocol}", "choose published, honest or both")
    root = paths.project_root()
    folder = root / "recipes"
    wanted = {"both": (False, True), "published": (False,), "honest": (True,)}[protocol]
    chosen = [
        (name, honest)
        for name in names or recipes.list_recipes(folder)
        for honest in (wanted[-1:] if recipes.is_honest(folder, name) else wanted)
    ]
    failed = []
    for name, honest in chosen:
        try:
            recipes.run_recipe(root, name, honest, settings or [])
        except recipes.RunError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed.append(error.message)
    if (board := root / recipes.LEADERBOARD).exists():
        width = shutil.get_terminal_size((100, 24)).columns
        print(f"\n{recipes.fold_leaderboard(board.read_text(encoding='utf-8'), width)}\n\n->  {recipes.LEADERBOARD}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(chosen)} runs failed: {'; '.join(failed)}", "what each one needs stands above"
        )
