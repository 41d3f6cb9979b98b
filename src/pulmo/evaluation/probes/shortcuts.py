"""The scores reached without anatomy, and those of the model among films that a shortcut cannot tell apart.

Each family of features describes how a film was made, stored or framed, never what it shows. A logistic regression on
them, fitted on train, is scored on val and test beside the model. On test, a shortcut explains
- most of the result where it comes within MARGIN of the model's AUROC, or where the model's AUROC falls by more than
  FALL among the pairs of films that the shortcut cannot tell apart;
- part of it where that fall is beyond chance: its 95% interval lies above 0;
- else little.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from pulmo.base.errors import UserError
from pulmo.evaluation.probes.features import FAMILIES
from pulmo.evaluation.probes.probe import Probe, Subject, draw_rows
from pulmo.films.rows.labels import LABELS
from pulmo.metrics.bootstrap import Resampling, bootstrap, check_films
from pulmo.metrics.discrimination import measure_auroc
from pulmo.metrics.estimates import Estimate, estimate, estimate_text, number
from pulmo.metrics.ranking import Flags, Floats, ranking
from pulmo.reporting.figures import draw_forest
from pulmo.reporting.report import Finding

MARGIN = 0.03
FALL = 0.1
CALIPER = 0.1  # standard deviations of the shortcut's log-odds: half of what propensity matching uses (Austin 2011)
PAIRED = 6000  # test films that are paired, drawn by lot where there are more: pairs grow with their square
_ALL = "all shortcuts"
_PAIRS = "pairs"


@dataclass(frozen=True)
class Matched:
    """The model among the pairs of films that a shortcut cannot tell apart, and how many of them there are."""

    model: Estimate  # its AUROC over these pairs
    shortcut: Estimate  # that of the shortcut over the same, near .5 where the matching works
    fall: Estimate  # the model's AUROC over all pairs less that over these
    pairs: int
    normal: int  # films in them
    pneumonia: int


@dataclass(frozen=True)
class Family:
    """One row of the ledger; without a number, and with a note, where the family is the same for every film."""

    name: str
    meaning: str
    features: int
    note: str
    val: Estimate | None  # AUROC of the shortcut
    test: Estimate | None
    matched: Matched | None


@dataclass(frozen=True)
class Shortcuts(Finding):
    """The ledger of shortcuts beside the model."""

    model: dict[str, float | None]  # its AUROC on val and test
    caliper: float
    families: list[Family]  # the last one is all of them together
    strongest: str | None  # the family with the best AUROC on test
    explains: str  # most, part or little
    verdict: str  # a sentence that says so

    paired: ClassVar = PAIRED

    def add_to(self, content: dict[str, Any]) -> None:
        """The key `shortcuts`."""
        content["shortcuts"] = self

    def doubts(self) -> list[str]:
        """The verdict, unless shortcuts explain little."""
        return [] if self.explains == "little" else [self.verdict]

    def draw(self, folder: Path) -> None:
        """shortcuts.png: each shortcut, and the model among films matched on it."""
        names = ("AUROC of the shortcut", "of the model, films matched")
        rows = [
            (row.name, dict(zip(names, (row.test, row.matched.model), strict=True)))
            for row in self.families
            if row.test and row.matched
        ]
        if rows:
            title = "Shortcuts on test (dashed: the model on all films)"
            draw_forest(folder / "shortcuts.png", rows, dict.fromkeys(names, self.model["test"]), title)


def measure_shortcuts(
    films: pd.DataFrame,
    splits: pd.DataFrame,
    index: pd.DataFrame,
    images: np.ndarray,
    predictions: pd.DataFrame,
    resampling: Resampling,
) -> Shortcuts:
    """The ledger: `films`, `splits` and `index` as in data/*.csv, `images` uint8 (N, S, S), `predictions` with columns
    path and logit for every film of val and test that has an image."""
    table = splits.merge(films[["path", "width", "height", "mode", "bytes"]], on="path").merge(index, on="path")
    table = table.merge(predictions[["path", "logit"]], on="path", how="left")
    if missing := table.path[(table["split"] != "train") & table.logit.isna()].tolist():
        raise UserError(f"the predictions lack {missing[0]}", "run `dvc repro evaluate` again")
    logit, train = table.logit.to_numpy(dtype=float), (table["split"] == "train").to_numpy()
    model = {split: _auroc_of(split, table, logit, resampling).value for split in ("val", "test")}
    features = {name: family(table, images) for name, (_, family) in FAMILIES.items()}
    varied = {name: columns for name, columns in features.items() if np.ptp(columns[train], axis=0).any()}
    rows = []
    for name, columns in features.items():
        about = (name, FAMILIES[name][0], columns.shape[1])
        rows.append(_measure_family(about, varied.get(name), table, resampling))
    together = np.hstack(list(varied.values())) if varied else None
    about = (_ALL, ", ".join(varied), 0 if together is None else together.shape[1])
    rows.append(_measure_family(about, together, table, resampling))
    strongest, explains, verdict = _judge(model["test"], rows)
    return Shortcuts(model, CALIPER, rows, strongest, explains, verdict)


def _measure_family(
    about: tuple[str, str, int], columns: Floats | None, table: pd.DataFrame, resampling: Resampling
) -> Family:
    """A row of the ledger about (name, meaning, features); `columns` is None where all films are alike."""
    if columns is None:
        return Family(*about, "the same for every film", None, None, None)
    train, test = ((table["split"] == split).to_numpy() for split in ("train", "test"))
    label, logit = (table["label"] == LABELS[1]).to_numpy(), table.logit.to_numpy(dtype=float)
    shortcut = _fit(columns[train], label[train])(columns)
    val = _auroc_of("val", table, shortcut, resampling)
    matched = match_films(label[test], shortcut[test], logit[test], table.patient[test], resampling)
    return Family(*about, "", val, _auroc_of("test", table, shortcut, resampling), matched)


def match_films(
    labels: ArrayLike, shortcut: ArrayLike, model: ArrayLike, groups: ArrayLike, resampling: Resampling
) -> Matched:
    """The model's AUROC over the pairs of one PNEUMONIA and one NORMAL film whose shortcut log-odds differ by at most
    CALIPER standard deviations, among PAIRED films at most.
    """
    label, score, patient = check_films(labels, model, groups)
    drawn = draw_rows(label, PAIRED, resampling.seed)
    hint = check_films(labels, shortcut, groups)[1][drawn]
    label, score, patient = label[drawn], score[drawn], patient[drawn]
    near = np.abs(hint[label][:, None] - hint[~label]) <= CALIPER * hint.std()
    pairs = np.nonzero(near)
    tables = {_PAIRS: csr_array((np.ones(len(pairs[0])), pairs), near.shape)}
    for name, values in (("model", score), ("shortcut", hint)):
        won = (np.sign(values[label][pairs[0]] - values[~label][pairs[1]]) + 1) / 2  # a tie counts half
        tables[name] = csr_array((won, pairs), near.shape)
    whole = ranking(label, score, with_auprc=False)

    def statistic(weights: Floats) -> dict[str, Floats]:
        first, second = weights[:, label], weights[:, ~label]
        sums = {name: ((first @ table) * second).sum(axis=1) for name, table in tables.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {name: sums[name] / sums[_PAIRS] for name in ("model", "shortcut")}
        return values | {"fall": whole(weights)["auroc"] - values["model"]}

    values, replicates = bootstrap(statistic, label, patient, *resampling)
    taking_part = np.zeros(len(label), dtype=bool)
    taking_part[label], taking_part[~label] = near.any(axis=1), near.any(axis=0)
    estimates = {name: estimate(float(values[name]), replicates[name], patient[taking_part]) for name in values}
    return Matched(
        **estimates,
        pairs=len(pairs[0]),
        normal=int((taking_part & ~label).sum()),
        pneumonia=int((taking_part & label).sum()),
    )


def _fit(columns: Floats, label: Flags) -> Callable[[Floats], Floats]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(columns, label)
    return lambda values: np.asarray(fitted.decision_function(values), dtype=np.float64)


def _auroc_of(split: str, table: pd.DataFrame, scores: Floats, resampling: Resampling) -> Estimate:
    part = (table["split"] == split).to_numpy()
    labels = (table["label"] == LABELS[1]).to_numpy()[part]
    return measure_auroc(labels, scores[part], table.patient[part], *resampling)


def _judge(model: float | None, rows: list[Family]) -> tuple[str | None, str, str]:
    """The strongest family, how much shortcuts explain, and the verdict."""
    judged = [row for row in rows if row.test and row.test.value is not None]
    if not judged or model is None:
        return None, "little", "Nothing to compare: no feature without anatomy differs between the films."
    strongest = max(judged, key=_test_auroc)
    falls = {row.name: row.matched.fall for row in judged if row.matched and row.matched.fall.value is not None}
    close = [row.name for row in judged if _test_auroc(row) >= model - MARGIN]
    deep = [name for name, fall in falls.items() if number(fall.value) > FALL]
    real = [name for name, fall in falls.items() if number(fall.low) > 0]
    reasons = [f"{', '.join(close)} within {MARGIN} of the model"] if close else []
    reasons += [f"the model falls by more than {FALL} among films matched on {', '.join(deep)}"] if deep else []
    if reasons:
        explains, start = "most", f"A shortcut explains most of this result ({'; '.join(reasons)})"
    elif real:
        explains, start = "part", f"Shortcuts explain part of this result ({', '.join(real)})"
    else:
        explains, start = "little", "No shortcut that was tried explains this result"
    facts = f"on test the AUROC is {_test_auroc(strongest):.3f} by {strongest.name}, without any anatomy, "
    facts += f"and {model:.3f} by the model"
    matched = [(row.name, row.matched) for row in judged if row.matched and row.name in falls]
    if matched:
        name, pairs = min(matched, key=lambda row: number(row[1].model.value))
        facts += f"; among {pairs.pairs:,} pairs of films that {name} cannot tell apart, "
        facts += f"the model reaches {estimate_text(pairs.model)}"
    return strongest.name, explains, f"{start}: {facts}."


def _test_auroc(row: Family) -> float:
    return number(row.test.value if row.test else None)


def _measure(subject: Subject) -> Shortcuts:
    data = subject.data
    return measure_shortcuts(data.films, data.splits, data.index, data.images, subject.predictions, subject.resampling)


PROBE = Probe("shortcuts", "Shortcuts", Path(__file__).with_suffix(".md.jinja"), _measure)
