"""Commands that ask a model: about films, or about a labelled folder."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, redirect_stdout
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.process import compute_alone, tell
from pulmo.films.rows.labels import LABELS

if TYPE_CHECKING:
    from pulmo.answering.batch import Row
    from pulmo.answering.champion import Place
    from pulmo.answering.predictor import Predictor

COLUMNS = ("path", "label", "patient", "split")
Package = Annotated[
    Path | None, typer.Option(help="folder of the model (without it: the champion, else models/package)")
]


class Engine(StrEnum):
    """What computes the answers for many films."""

    local = "local"
    ray = "ray"


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
    dicom_sr: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="write a DICOM report and a picture of each DICOM film"),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="answer, and mark, films that are refused otherwise")
    ] = False,
    engine: Annotated[Engine, typer.Option(help="this machine, or the Ray cluster at RAY_ADDRESS")] = Engine.local,
) -> None:
    """Say NORMAL or PNEUMONIA of films, and how sure that is. Not a medical device.

    Refused are films that are no chest films by their header, size or colour, and films unlike those that the model
    learnt from. Exit code 1 where a film could not be read or was refused, or cannot have the report that was asked
    for; the others are answered.
    """
    compute_alone()
    from pulmo.images.guard import prepare

    # Path.is_file raises where a folder may not be opened
    prepare(Path(film) for film in films if os.path.isfile(film))  # noqa: PTH113
    if dicom_sr:
        require("dicom", "highdicom")
    from pulmo.answering import batch, gather, output

    if as_json and as_csv:
        raise UserError("--json and --csv exclude each other")
    place = _choose(package)
    predictor = _load(place, heatmap is not None)
    write = output.to_json if as_json else output.to_csv if as_csv else output.to_text
    if as_csv:
        print(output.csv_header())
    answer: Callable[..., Iterable[Row]] = batch.answer_films
    if engine is Engine.ray:
        answer = partial(batch.answer_on_cluster, package=place.folder)
    sources, total = gather.gather_films(films)
    rows = answer(predictor, films=sources, folders=batch.Folders(heatmap, dicom_sr), anyway=anyway)
    out = sys.stdout
    with redirect_stdout(sys.stderr) if engine is Engine.ray else nullcontext():  # Ray tells there of nodes that die
        whole = _write_rows(rows, total, write, out)
    if not whole:
        raise typer.Exit(1)


def _load(place: "Place", heat: bool) -> "Predictor":
    from pulmo.answering.predictor import Predictor

    predictor = Predictor.load_folder(place.folder, place.name, place.version, threads=1)  # films come on every core
    if heat and not predictor.network.has_heat:
        tell(
            f"heat maps: {predictor.info.arch} is asked 50 times a film, with a place of it covered each time, for it "
            "does not end in pooling and one linear layer"
        )
    return predictor


def _write_rows(rows: "Iterable[Row]", total: int | None, write: "Callable[[Row], str]", out: TextIO) -> bool:
    """Write each row as it comes, and why one has no answer or no report; True where every film has all it should."""
    from tqdm import tqdm

    from pulmo.answering import output
    from pulmo.base.names import show_name

    whole, last = True, None
    for row in tqdm(rows, total=total, desc="answer", unit="film", disable=None):
        tqdm.write(write(row), file=out)
        for reason in (row.error, row.unreported and f"no report: {row.unreported}"):
            if reason:
                whole = False
                tqdm.write(f"error: {show_name(row.film)}: {reason}", file=sys.stderr)
        last = last if row.error else row.answer
    if write is output.to_text and last:
        print(output.threshold_text(last), file=out)
    return whole


def evaluate(
    films: Annotated[Path, typer.Option(help="labelled folder, .zip or .tar(.gz), as source `folder` takes it")],
    labels: Annotated[Path | None, typer.Option(help="CSV with columns path,label[,patient]")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=NAME", help="the name, or number, of one of these columns in the CSV"),
    ] = None,
    label_value: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE=CLASS", help="the class that another label, or class folder, means"),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="leave out films and rows that have no label here")
    ] = False,
    package: Package = None,
    out: Annotated[Path, typer.Option(help="folder for the report")] = Path("reports/external"),
) -> None:
    """Test the model on labelled films from elsewhere, with its threshold as it is, and write a report."""
    from pulmo.base.tables import align, render, terminal_width
    from pulmo.evaluation.external import evaluate_folder
    from pulmo.metrics.bootstrap import Resampling
    from pulmo.metrics.estimates import estimate_text

    for option, path in (("--films", films), ("--labels", labels)):
        if path and not path.exists():
            raise UserError(f"{option} {path} not found", "name an existing file or folder")
    source: dict[str, Any] = {"path": films, "labels": labels, "columns": {}, "label_values": {}, "partial": partial}
    for text in column or []:
        name, written = _cut(text, text.find("="), "--column", COLUMNS)
        source["columns"][name] = int(written) if written.isdecimal() else written
    for text in label_value or []:
        label, value = _cut(text, text.rfind("="), "--label-value", LABELS)
        source["label_values"][value] = label
    report = evaluate_folder(_choose(package).folder, source, out, Resampling(seed=42))
    print(f"{report.split.films} films of {report.split.patients} patients, {report.split.pneumonia} with PNEUMONIA")
    rows = [[name, estimate_text(estimate)] for name, estimate in report.split.metrics.items()]
    print(render([align(rows)], terminal_width()))
    refused = estimate_text(report.refused)
    print(f"Asked about them, the model refuses {refused} of these films. The numbers above count them all the same.")
    print(report.known.text)
    print(f"->  {out}")


def _cut(text: str, place: int, option: str, names: Sequence[str]) -> tuple[str, str]:
    """The two sides of the = at `place`, that first which is one of `names`; UserError where none is."""
    sides = text[: max(place, 0)].strip(), text[place + 1 :].strip()
    for name, other in (sides, sides[::-1]):
        if name in names and other:
            return name, other
    raise UserError(f"{option} {text!r} names none of {', '.join(names)}", "see `pulmo evaluate --help`")


def require(extra: str, *libraries: str) -> None:
    """UserError where one of these libraries, which an extra brings, is not installed."""
    for name in libraries:
        if not find_spec(name):
            raise UserError(f"{name} is not installed", f"pip install 'pulmo[{extra}]'")


def find_place(package: Path | None) -> "Place":
    """The model that answers: `package`, else the champion, else models/package."""
    from pulmo.answering.champion import NotAtHand, Place, find_registered

    if package:
        return Place(package, str(package), "")
    root = paths.project_root()
    try:
        place = find_registered()
    except NotAtHand:  # MLflow, whose import takes seconds, copies it once
        place = _fetch_champion(root)
    return place or Place(root / paths.PACKAGE, str(paths.PACKAGE), "")


def _choose(package: Path | None) -> "Place":
    place = find_place(package)
    name = f"champion {place.name}, version {place.version}" if place.version else place.name
    tell(f"asked: {name}")
    return place


def _fetch_champion(root: Path) -> "Place | None":
    from pulmo.answering.champion import Place
    from pulmo.experiments.project import Project
    from pulmo.tracking.registry import fetch_package, read_champion

    project = Project(root)
    champion = read_champion(project.store)
    return Place(fetch_package(project.store, champion), champion.name, str(champion.number)) if champion else None
