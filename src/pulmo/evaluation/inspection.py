"""The part of an evaluation that needs the images: the model's scores, and all that the probes find."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from pulmo.evaluation.probes import explanation, refusals, renderings, robustness, shortcuts
from pulmo.evaluation.probes.probe import Data, Probe, Subject
from pulmo.films.stack import FilmStack
from pulmo.films.table import CSV_PREFIX
from pulmo.model.classifier import Classifier
from pulmo.reporting.report import Section

PROBES: tuple[Probe, ...] = (renderings.PROBE, refusals.PROBE, shortcuts.PROBE, robustness.PROBE, explanation.PROBE)


def run_probes(subject: Subject) -> list[Section]:
    """Measure with every probe; the order is that of the model card."""
    return [Section(probe.name, probe.title, probe.template, probe.measure(subject)) for probe in PROBES]


def view_films(classifier: Classifier, views: int) -> Classifier:
    """The same classifier, which answers by the mean log-odds of so many views of a film."""
    return replace(classifier, info=classifier.info.model_copy(update={"tta_views": views}))


def score_films(classifier: Classifier, splits: Sequence[pd.DataFrame], data: Data, batch_size: int) -> pd.DataFrame:
    """The films of all `splits` (columns path, row of the images, target) with the columns width, height and mode as
    stored, those of a CSV besides, label, and logit, the log-odds of PNEUMONIA."""
    columns = [name for name in data.films.columns if name.startswith(CSV_PREFIX)]
    told = data.films[["path", "width", "height", "mode", *columns]]
    films = pd.concat(splits, ignore_index=True).merge(told, on="path")
    logits = classifier.score(FilmStack(data.images, films.row), batch_size, precision="fp32")
    return films.assign(label=films.target, logit=logits.astype(float))
