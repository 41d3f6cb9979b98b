"""Commands that ask a model: about films, or about a labelled folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pulmo.base.errors import UserError

Package = Annotated[
    Path | None, typer.Option(help="folder of the model (without it: the champion, else models/package)")
]


def predict(
    films: Annotated[list[Path], typer.Argument(help="image or DICOM files")],
    package: Package = None,
) -> None:
    """Say NORMAL or PNEUMONIA of single films. Not a medical device."""
    from pulmo.images.guard import prepare

    prepare(films)
    from pulmo.answering.predictor import Predictor
    from pulmo.metrics.estimates import probability_text

    predictor = Predictor.load(_choose(package))
    for film in films:
        answer = predictor.predict([film])[0]
        probability, threshold = (probability_text(value) for value in (answer.prob_pneumonia, answer.threshold))
        print(f"{film}: {answer.label}  prob_pneumonia {probability}  threshold {threshold}")


def evaluate(
    films: Annotated[Path, typer.Option(help="labelled folder, .zip or .tar(.gz), as source `folder` takes it")],
    labels: Annotated[Path | None, typer.Option(help="CSV with columns path,label[,patient]")] = None,
    package: Package = None,
    out: Annotated[Path, typer.Option(help="folder for the report")] = Path("reports/external"),
) -> None:
    """Test the model on labelled films from elsewhere, with its threshold as it is, and write a report."""
    from pulmo.evaluation.external import evaluate_folder
    from pulmo.metrics.bootstrap import Resampling
    from pulmo.metrics.estimates import estimate_text
    from pulmo.model.classifier import load_classifier

    for option, path in (("--films", films), ("--labels", labels)):
        if path and not path.exists():
            raise UserError(f"{option} {path} not found", "name an existing file or folder")
    report = evaluate_folder(load_classifier(_choose(package)), films, labels, out, Resampling(seed=42))
    print(f"{report.split.films} films of {report.split.patients} patients, {report.split.pneumonia} with PNEUMONIA")
    for name, found in report.split.metrics.items():
        print(f"  {name:18} {estimate_text(found)}")
    print(report.known.text)
    print(f"->  {out}")


def _choose(package: Path | None) -> Path:
    from pulmo.base import paths
    from pulmo.experiments.project import Project
    from pulmo.experiments.promotion import find_package

    chosen, name = (package, str(package)) if package else find_package(Project(paths.project_root()))
    print(f"asked: {name}", file=sys.stderr)
    return chosen
