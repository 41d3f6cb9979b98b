"""Commands that ask a model: about films, or about a labelled folder."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulmo.base.errors import UserError

if TYPE_CHECKING:
    from pulmo.answering.champion import Place

Package = Annotated[
    Path | None, typer.Option(help="folder of the model (without it: the champion, else models/package)")
]


def predict(
    films: Annotated[
        list[str],
        typer.Argument(help="image or DICOM files, folders, patterns, .zip or .tar(.gz), `-` for standard input"),
    ],
    package: Package = None,
    as_json: Annotated[bool, typer.Option("--json", help="a line of JSON for each film")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a row for each film")] = False,
    heatmap: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="draw where on each film the answer comes from")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="answer, and mark, films that are refused otherwise")
    ] = False,
) -> None:
    """Say NORMAL or PNEUMONIA of films, and how sure that is. Not a medical device.

    Refused are films that are no chest films by their header, size or colour, and films unlike those that the model
    learnt from. Exit code 1 where a film could not be read or was refused; the others are answered.
    """
    from pulmo.images.guard import prepare

    prepare(Path(film) for film in films if Path(film).is_file())
    from tqdm import tqdm

    from pulmo.answering import batch, gather, output
    from pulmo.answering.predictor import Predictor
    from pulmo.base.names import show_name

    if as_json and as_csv:
        raise UserError("--json and --csv exclude each other")
    place = _choose(package)
    predictor = Predictor.load_folder(place.folder, place.name, place.version)
    form = "json" if as_json else "csv" if as_csv else "text"
    failed, last = False, None
    if as_csv:
        print(output.csv_header())
    rows = batch.answer_films(predictor, gather.gather_films(films), heatmap, anyway)
    for row in tqdm(rows, total=gather.count_films(films), desc="answer", unit="film", disable=None):
        tqdm.write(output.WRITERS[form](row), file=sys.stdout)
        if row.error:
            failed = True
            tqdm.write(f"error: {show_name(row.film)}: {row.error}", file=sys.stderr)
        else:
            last = row.answer
    if form == "text" and last:
        print(output.threshold_text(last))
    if failed:
        raise typer.Exit(1)


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
    report = evaluate_folder(load_classifier(_choose(package).folder), films, labels, out, Resampling(seed=42))
    print(f"{report.split.films} films of {report.split.patients} patients, {report.split.pneumonia} with PNEUMONIA")
    for name, found in report.split.metrics.items():
        print(f"  {name:18} {estimate_text(found)}")
    print(report.known.text)
    print(f"->  {out}")


def find_place(package: Path | None) -> "Place":
    """The model that answers: `package`, else the champion, else models/package."""
    from pulmo.answering.champion import NotAtHand, Place, find_registered
    from pulmo.base import paths

    root = paths.project_root()
    try:
        place = Place(package, str(package), "") if package else find_registered(root=root)
    except NotAtHand:  # MLflow, whose import takes seconds, copies it once
        place = _fetch_champion(root)
    return place or Place(root / paths.PACKAGE, str(paths.PACKAGE), "")


def _choose(package: Path | None) -> "Place":
    place = find_place(package)
    name = f"champion {place.name}, version {place.version}" if place.version else place.name
    print(f"asked: {name}", file=sys.stderr)
    return place


def _fetch_champion(root: Path) -> "Place | None":
    from pulmo.answering.champion import Place
    from pulmo.experiments.project import Project
    from pulmo.tracking.registry import fetch_package, read_champion

    project = Project(root)
    champion = read_champion(project.store)
    return Place(fetch_package(project.store, champion), champion.name, str(champion.number)) if champion else None
