"""The part of an evaluation that needs the images: the model's scores, and all that the probes find."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pulmo.base.process import release_memory
from pulmo.evaluation.probes import equipment, explanation, refusals, renderings, robustness, shortcuts
from pulmo.evaluation.probes.probe import Data, Probe, Subject
from pulmo.evaluation.spread import score_on_cluster
from pulmo.films.rows.stack import FilmStack
from pulmo.films.rows.table import CSV_PREFIX
from pulmo.model.classifier import Classifier
from pulmo.model.device import choose_device
from pulmo.reporting.report import Finding, Section

PROBES: tuple[Probe, ...] = (
    renderings.PROBE,
    equipment.PROBE,
    refusals.PROBE,
    shortcuts.PROBE,
    robustness.PROBE,
    explanation.PROBE,
)


def run_probes(subject: Subject) -> list[Section]:
    """Measure with every probe; the order is that of the model card."""
    return [Section(probe.name, probe.title, probe.template, _measure(probe, subject)) for probe in PROBES]


def _measure(probe: Probe, subject: Subject) -> Finding | None:
    release_memory()
    return probe.measure(subject)


def score_films(
    classifier: Classifier, splits: Sequence[pd.DataFrame], data: Data, batch_size: int, package: Path | None = None
) -> pd.DataFrame:
    """The films of all `splits` (columns path, row of the images, target) with the columns width, height and mode as
    stored, those of a CSV besides, label, and logit, the log-odds of PNEUMONIA.

    With the folder `package` of the classifier a Ray cluster scores them, unless this machine has a GPU.
    """
    columns = [name for name in data.films.columns if name.startswith(CSV_PREFIX)]
    facts = data.films[["path", "width", "height", "mode", *columns]]
    films = pd.concat(splits, ignore_index=True).merge(facts, on="path")
    stack = FilmStack(data.images, films.row)
    if package and choose_device().type == "cpu":
        logits = score_on_cluster(package, classifier.info.tta_views, stack, batch_size)
    else:
        logits = classifier.score(stack, batch_size, precision="fp32")
    return films.assign(label=films.target, logit=logits.astype(float))
