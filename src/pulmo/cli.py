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


@app.command()
def evaluate(
    films: Annotated[Path, typer.Option(help="labelled folder, .zip or .tar(.gz), as source `folder` takes it")],
    labels: Annotated[Path | None, typer.Option(help="CSV with columns path,label[,patient]")] = None,
    package: Annotated[Path, typer.Option(help="model package")] = Path("models/package"),
    out: Annotated[Path, typer.Option(help="folder for the report")] = Path("reports/external"),
) -> None:
    """External test: score labelled films with the locked threshold and temperature."""
    from pulmo.external import evaluate_folder
    from pulmo.metrics import estimate_text
    from pulmo.predictor import Predictor

    report = evaluate_folder(Predictor.load(package), films, labels, out)
    print(f"{report['films']} films of {report['patients']} patients, {report['pneumonia']} with PNEUMONIA")
    for name, found in report["metrics"].items():
        print(f"  {name:18} {estimate_text(found)}")
    print(f"->  {out}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="experiment, git revision, MLflow run, or `workspace`")],
    second: Annotated[str, typer.Argument(help="the same; differences are second less first")],
) -> None:
    """Two experiments on the same test films: paired bootstrap, DeLong, McNemar, and where they disagree."""
    import io

    import pandas as pd

    from pulmo import paths
    from pulmo.comparison import compare_models, pair_predictions
    from pulmo.files import write_json
    from pulmo.metrics import estimate_text
    from pulmo.revisions import read_output

    root = paths.project_root()
    tables = [pd.read_csv(io.StringIO(read_output(root, str(paths.PREDICTIONS), name))) for name in (first, second)]
    a, b = pair_predictions(*(table[table.split == "test"] for table in tables))
    report = compare_models(a.label, a.patient, (a.logit, b.logit), (a.called == 1, b.called == 1))
    different = report["disagreements"]
    films = [
        {"path": a.path[row], "label": a.label[row], first: a.called[row], second: b.called[row]} for row in different
    ]
    write_json(paths.COMPARISON, report | {"first": first, "second": second, "disagreements": films})
    print(f"{report['films']} test films of {report['patients']} patients; difference = {second} less {first}\n")
    print(f"{'':18} {first[:16]:>16} {second[:16]:>16}   difference (95% interval)")
    for name, row in report["metrics"].items():
        print(f"{name:18} {row['a']:16.3f} {row['b']:16.3f}   {estimate_text(row['difference'])}")
    if delong := report["delong"]:
        print(f"\nDeLong: AUROC {delong['difference']:+.4f}, p = {delong['p']:.3g}")
    told = report["mcnemar"]
    right = f"only {first} right {told['only_a_right']}, only {second} right {told['only_b_right']}"
    print(f"McNemar: {right}, p = {told['p']:.3g}")
    print(f"{len(different)} films are called differently  ->  {paths.COMPARISON}")


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
        wanted = {"both": (False, True), "published": (False,), "honest": (True,)}[protocol]
        for honest in wanted[-1:] if recipes.is_honest(root / "recipes", name) else wanted:
            recipes.run_recipe(root, name, honest, settings or [])
    print((root / "reports" / "recipes.md").read_text(encoding="utf-8"))
