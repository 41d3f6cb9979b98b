"""`pulmo`: everything that is done with the pipeline beside `dvc repro`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
recipe = typer.Typer(no_args_is_help=True, help="Run published recipes and compare them.")
app.add_typer(recipe, name="recipe")

Settings = Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value for params.yaml, repeatable")]


def main() -> None:
    """Run the command line; what a user can cause is one line on stderr and exit code 1."""
    try:
        app()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


@app.command()
def summary() -> None:
    """Metrics with intervals, where the reports are, and what to try next."""
    from pulmo import paths
    from pulmo.files import read_json

    if not paths.EVALUATION.exists():
        raise ValueError(f"{paths.EVALUATION} not found; run `dvc repro` in the root of the project first")
    report = read_json(paths.EVALUATION)
    test = report["test"]
    print(f"\nTest set: {test['films']} films of {test['patients']} patients, {test['pneumonia']} with PNEUMONIA")
    for name in ("auroc", "accuracy", "sensitivity", "specificity", "f1"):
        found = test["metrics"][name]
        value = "undefined" if found["value"] is None else f"{found['value']:.3f}"
        interval = "" if found["low"] is None else f"  (95% interval {found['low']:.3f} to {found['high']:.3f})"
        print(f"  {name:12} {value}{interval}")
    point = report["locked"]["operating_point"]
    print(f"  threshold {point['threshold']:.3f} on prob_pneumonia, locked on validation ({point['policy']})")
    print(f"\nReports:  {paths.CARD_HTML}  {paths.EVALUATION}  {paths.PLOTS}/  {paths.PREDICTIONS}")
    print("Next:     source .venv/bin/activate")
    print("          dvc exp run -S train.lr=0.0005   run a variant as an experiment")
    print("          dvc exp show                     compare experiments")
    print("          dvc plots show                   ROC, precision-recall, curves, in the browser")
    print("          mlflow ui                        every run at http://127.0.0.1:5000")
    print("          pulmo predict FILM               ask the model about a film")


@app.command()
def predict(
    films: Annotated[list[Path], typer.Argument(help="image or DICOM files")],
    package: Annotated[Path, typer.Option(help="model package")] = Path("models/package"),
) -> None:
    """Answer for single films. Not a medical device."""
    from pulmo.predictor import Predictor

    predictor = Predictor.load(package)
    for film in films:
        answer = predictor.predict([film])[0]
        print(f"{film}: {answer.label}  prob_pneumonia {answer.prob_pneumonia:.3f}  threshold {answer.threshold:.3f}")


@recipe.command("list")
def list_recipes() -> None:
    """Names of the recipes."""
    from pulmo import paths, recipes

    print("\n".join(recipes.list_recipes(paths.project_root() / "recipes")))


@recipe.command("run")
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
        for honest in (False, True):
            if protocol in ("both", "honest" if honest else "published"):
                recipes.run_recipe(root, name, honest, settings or [])
    print((root / "reports" / "recipes.md").read_text(encoding="utf-8"))
