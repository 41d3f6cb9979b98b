"""Commands that run published recipes."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Run published recipes and compare them.")

Settings = Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value for params.yaml, repeatable")]


@app.command("list")
def list_recipes() -> None:
    """Names of the recipes."""
    from pulmo import paths, recipes

    print("\n".join(recipes.list_recipes(paths.project_root() / "recipes")))


@app.command("run")
def run_recipe(
    names: Annotated[list[str] | None, typer.Argument(help="recipes; all where none is named")] = None,
    protocol: Annotated[str, typer.Option(help="published, honest or both")] = "both",
    settings: Settings = None,
) -> None:
    """Run recipes as DVC experiments and print the leaderboard."""
    from pulmo import paths, recipes

    if protocol not in ("published", "honest", "both"):
        raise ValueError(f"--protocol {protocol}: choose published, honest or both")
    root = paths.project_root()
    for name in names or recipes.list_recipes(root / "recipes"):
        wanted = {"both": (False, True), "published": (False,), "honest": (True,)}[protocol]
        for honest in wanted[-1:] if recipes.is_honest(root / "recipes", name) else wanted:
            recipes.run_recipe(root, name, honest, settings or [])
    print((root / "reports" / "recipes.md").read_text(encoding="utf-8"))
