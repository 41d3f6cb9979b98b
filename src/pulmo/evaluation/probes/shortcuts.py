"""What can be told without anatomy, and what is left of the model among films that a shortcut cannot tell apart.

Each family of features describes how a film was made, stored or framed, never what it shows. A logistic regression on
them, fitted on train, is scored on val and test beside the model. On test, a shortcut explains
- most of the result where it comes within MARGIN of the model's AUROC, or where the model's AUROC falls by more than
  FALL among the pairs of films that the shortcut cannot tell apart;
- part of it where that fall is beyond chance: its 95% interval lies above 0;
- else little.
"""

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import fft

from pulmo.base.errors import UserError
from pulmo.films.labels import LABELS
from pulmo.metrics.bootstrap import bootstrap, check_films
from pulmo.metrics.estimates import estimate, estimate_auroc, estimate_text
from pulmo.metrics.ranking import Flags, Floats, ranking

MARGIN = 0.03
FALL = 0.1
CALIPER = 0.1  # standard deviations of the shortcut's log-odds: half of what propensity matching uses (Austin 2011)
BINS = 28
_ALL = "all shortcuts"


def measure_shortcuts(
    films: pd.DataFrame,
    splits: pd.DataFrame,
    index: pd.DataFrame,
    images: np.ndarray,
    predictions: pd.DataFrame,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The ledger: `films`, `splits` and `index` as in data/*.csv, `images` uint8 (N, S, S), `predictions` with columns
    path and logit for every film of val and test that has an image.

    Returns, for JSON: model {val, test}: its AUROC; caliper; families: rows {name, meaning, features, note, val, test,
    matched}, val and test being estimates of the AUROC and matched what `match_films` returns of test; the last row is
    all families together, and one that is the same for every film has a note and None instead of numbers; strongest:
    the family with the best AUROC on test; explains: most, part or little; verdict: a sentence that says so.
    """
    table = splits.merge(films[["path", "width", "height", "mode", "bytes"]], on="path").merge(index, on="path")
    table = table.merge(predictions[["path", "logit"]], on="path", how="left")
    label = (table["label"] == LABELS[1]).to_numpy()
    parts = {name: (table["split"] == name).to_numpy() for name in ("train", "val", "test")}
    if missing := table.path[~parts["train"] & table.logit.isna()].tolist():
        raise UserError(f"the predictions lack {missing[0]}", "run `dvc repro evaluate` again")

    def auroc(split: str, scores: Floats) -> dict[str, Any]:
        part = parts[split]
        return _auroc(label[part], scores[part], table.patient[part], resamples, seed)

    logit = table.logit.to_numpy(dtype=float)
    model = {split: auroc(split, logit)["value"] for split in ("val", "test")}
    features = {name: family(table, images) for name, (_, family) in FAMILIES.items()}
    told = {name: columns for name, columns in features.items() if np.ptp(columns[parts["train"]], axis=0).any()}
    features[_ALL] = np.hstack(list(told.values())) if told else np.zeros((len(table), 0))

    rows = []
    for name, columns in features.items():
        meaning = FAMILIES[name][0] if name in FAMILIES else ", ".join(told)
        row: dict[str, Any] = {"name": name, "meaning": meaning, "features": columns.shape[1]}
        if name not in told and not (name == _ALL and told):
            rows.append(row | {"note": "the same for every film", "val": None, "test": None, "matched": None})
            continue
        shortcut = _fit(columns[parts["train"]], label[parts["train"]])(columns)
        test = parts["test"]
        matched = match_films(label[test], shortcut[test], logit[test], table.patient[test], resamples, seed)
        rows.append(
            row | {"note": "", "val": auroc("val", shortcut), "test": auroc("test", shortcut), "matched": matched}
        )
    return {"model": model, "caliper": CALIPER, "families": rows} | _judge(model["test"], rows)


def match_films(
    labels: ArrayLike, shortcut: ArrayLike, model: ArrayLike, groups: ArrayLike, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The model's AUROC over the pairs of one PNEUMONIA and one NORMAL film whose shortcut log-odds differ by at most
    CALIPER standard deviations.

    Returns estimates of `model`, of `shortcut` over the same pairs (near .5 where the matching works) and of `fall`
    (the model's AUROC over all pairs less that over these), and the counts pairs, normal and pneumonia (films in them).
    """
    label, score, patient = check_films(labels, model, groups)
    hint = check_films(labels, shortcut, groups)[1]
    away = hint[label][:, None] - hint[~label]
    near = np.abs(away) <= CALIPER * hint.std()
    wins = {
        "model": near * _win(score[label][:, None] - score[~label]),
        "shortcut": near * _win(away),
    }
    whole = ranking(label, score)

    def statistic(weights: Floats) -> dict[str, Floats]:
        first, second = weights[:, label], weights[:, ~label]
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = ((first @ near) * second).sum(axis=1)
            values = {name: ((first @ won) * second).sum(axis=1) / pairs for name, won in wins.items()}
        return values | {"fall": whole(weights)["auroc"] - values["model"]}

    values, replicates = bootstrap(statistic, label, patient, resamples, seed)
    taking_part = np.zeros(len(label), dtype=bool)
    taking_part[label], taking_part[~label] = near.any(axis=1), near.any(axis=0)
    estimates = {name: estimate(float(values[name]), replicates[name], patient[taking_part]) for name in values}
    counts = {"normal": int((taking_part & ~label).sum()), "pneumonia": int((taking_part & label).sum())}
    return estimates | {"pairs": int(near.sum())} | counts


def power_spectrum(images: np.ndarray) -> Floats:
    """Logarithm of the mean power in rings of spatial frequency from 0 (without it) to Nyquist, (N, at most BINS).

    Of images (N, S, S) less their mean and under a Hann window, which keeps the jump between opposite edges out of it.
    """
    size = images.shape[1]
    bins = min(BINS, size // 2)
    frequency = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size))
    ring = np.ceil(np.round(frequency * 2 * bins, 9)).astype(int).ravel()
    twice = np.tile(np.where(np.isin(np.arange(size // 2 + 1) * 2, (0, size)), 1.0, 2.0), size)  # rfft keeps one half
    rings = (ring[:, None] == np.arange(1, bins + 1)) * twice[:, None]
    rings = (rings / rings.sum(axis=0)).astype(np.float32)
    window = np.hanning(size).astype(np.float32)
    window = window[:, None] * window

    def spectra() -> Iterator[Floats]:
        for start in range(0, len(images), 64):
            block = images[start : start + 64].astype(np.float32)
            block = (block - block.mean(axis=(1, 2), keepdims=True)) * window
            power = np.abs(fft.rfft2(block)) ** 2
            yield np.log(power.reshape(len(block), -1) @ rings + 1)

    return np.concatenate(list(spectra())).astype(np.float64)


def border(images: np.ndarray) -> np.ndarray:
    """Mean and spread of gray in 32 pieces of the outer 5% of (N, S, S) images: 8 along each side, (N, 64)."""
    width = max(1, round(images.shape[1] / 20))
    turned = images.transpose(0, 2, 1)
    strips = [images[:, :width], images[:, -width:], turned[:, :width], turned[:, -width:]]
    pieces = [piece for strip in strips for piece in np.array_split(strip, 8, axis=2)]
    return np.stack([measure(axis=(1, 2)) for piece in pieces for measure in (piece.mean, piece.std)], axis=1)


def _in_blocks(measure: Callable[[np.ndarray], np.ndarray]) -> Callable[[pd.DataFrame, np.ndarray], Floats]:
    """`measure` of the images of the table, read from the memory map a few at a time."""

    def family(table: pd.DataFrame, images: np.ndarray) -> Floats:
        rows = table["row"].to_numpy()
        return np.concatenate([measure(images[rows[start : start + 256]]) for start in range(0, len(rows), 256)])

    return family


def _gray(images: np.ndarray) -> Floats:
    return np.array([cv2.meanStdDev(image) for image in images]).reshape(-1, 2)


def _size(table: pd.DataFrame, images: np.ndarray) -> Floats:
    width, height = (np.log(table[name].to_numpy(dtype=float)) for name in ("width", "height"))
    return np.stack([width, height, width - height], axis=1)


def _file(table: pd.DataFrame, images: np.ndarray) -> Floats:
    size, width, height = (np.log(table[name].to_numpy(dtype=float)) for name in ("bytes", "width", "height"))
    return np.stack([size, size - width - height], axis=1)


def _mode(table: pd.DataFrame, images: np.ndarray) -> Floats:
    return pd.get_dummies(table["mode"]).to_numpy(dtype=float)


FAMILIES: dict[str, tuple[str, Callable[[pd.DataFrame, np.ndarray], Floats]]] = {
    "file": ("bytes, bytes per pixel", _file),
    "image size": ("width, height, aspect ratio as stored", _size),
    "mode": ("pixel format as stored", _mode),
    "gray level": ("mean and spread of gray", _in_blocks(_gray)),
    "power spectrum": (f"power in up to {BINS} rings of spatial frequency", _in_blocks(power_spectrum)),
    "border": ("mean and spread of gray in 32 pieces of the outer 5%", _in_blocks(border)),
}


def _fit(columns: Floats, label: Flags) -> Callable[[Floats], Floats]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(columns, label)
    return lambda values: np.asarray(fitted.decision_function(values), dtype=np.float64)


def _auroc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, resamples: int, seed: int) -> dict[str, Any]:
    label, score, patient = check_films(labels, scores, groups)
    values, replicates = bootstrap(ranking(label, score), label, patient, resamples, seed)
    return estimate_auroc(float(values["auroc"]), replicates["auroc"], label, patient)


def _win(difference: Floats) -> Floats:
    return (np.sign(difference) + 1) / 2


def _judge(model: float | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    judged = [row for row in rows if row["test"] and row["test"]["value"] is not None]
    if not judged or model is None:
        verdict = "Nothing to compare: no feature without anatomy differs between the films."
        return {"strongest": None, "explains": "little", "verdict": verdict}
    strongest = max(judged, key=lambda row: float(row["test"]["value"]))
    falls = {row["name"]: row["matched"]["fall"] for row in judged if row["matched"]["fall"]["value"] is not None}
    close = [row["name"] for row in judged if row["test"]["value"] >= model - MARGIN]
    deep = [name for name, fall in falls.items() if fall["value"] > FALL]
    real = [name for name, fall in falls.items() if fall["low"] is not None and fall["low"] > 0]
    facts = f"on test the AUROC is {strongest['test']['value']:.3f} by {strongest['name']}, without any anatomy, "
    facts += f"and {model:.3f} by the model"
    within = min((row for row in judged if row["name"] in falls), key=_matched_auroc, default=None)
    if within:
        facts += f"; among {within['matched']['pairs']:,} pairs of films that {within['name']} cannot tell apart, "
        facts += f"the model reaches {estimate_text(within['matched']['model'])}"
    reasons = [f"{', '.join(close)} within {MARGIN} of the model"] if close else []
    reasons += [f"the model falls by more than {FALL} among films matched on {', '.join(deep)}"] if deep else []
    if reasons:
        explains, start = "most", f"A shortcut explains most of this result ({'; '.join(reasons)})"
    elif real:
        explains, start = "part", f"Shortcuts explain part of this result ({', '.join(real)})"
    else:
        explains, start = "little", "No shortcut that was tried explains this result"
    return {"strongest": strongest["name"], "explains": explains, "verdict": f"{start}: {facts}."}


def _matched_auroc(row: dict[str, Any]) -> float:
    return float(row["matched"]["model"]["value"])
