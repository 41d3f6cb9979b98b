"""Commands about experiments: what came out, and what differs between two."""

from typing import Annotated

import typer


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
