"""Rules that choose the temperature and the abstention band: how they hold on films that look unlike validation.

Run from the project's root, after the experiments: `python docs/calibration.py [--test] EXPERIMENT ...`. About two
minutes each. Each rule is judged on a rendering of validation films that it was not given, each rendering in turn.
With --test, the reports' test films are scored by each rule as well; no rule is chosen by them.
"""

import sys
from collections.abc import Callable

import dvc.api
import numpy as np
import pandas as pd
from ranking import opened
from scipy.optimize import minimize_scalar

from pulmo.evaluation.probes.renderings import score_renderings
from pulmo.metrics.calibration import BINS, to_probability
from pulmo.metrics.comparison import read_predictions
from pulmo.metrics.decisions import choose_abstention, choose_operating_point, is_answered, is_called
from pulmo.metrics.reliability import expected_calibration_error

TARGET_ERROR = 0.02
PLAIN = "as it is"
Rule = Callable[[pd.DataFrame], float]  # films of validation in some renderings -> temperature


def on_validation(films: pd.DataFrame) -> float:
    """The least log loss on validation films as they are; where they are left out, 1."""
    plain = films[films.rendering == PLAIN]
    return least_loss(plain.assign(rendering="")) if len(plain) else 1.0


def on_renderings(films: pd.DataFrame) -> float:
    """The least log loss on all renderings together."""
    return least_loss(films.assign(rendering=""))


def least_loss(films: pd.DataFrame) -> float:
    """The temperature from .1 to 10 with the least log loss on the rendering where it does worst."""
    parts = [(part.label.to_numpy(), part.logit.to_numpy()) for _, part in films.groupby("rendering")]
    found = minimize_scalar(
        lambda log_t: max(log_loss(label, logit, np.exp(log_t)) for label, logit in parts),
        bounds=np.log([0.1, 10]),
        method="bounded",
    )
    return float(np.exp(found.x))


RULES: dict[str, Rule] = {
    "none": lambda films: 1.0,
    "validation": on_validation,
    "validation, 1 or more": lambda films: max(1.0, on_validation(films)),
    "renderings": on_renderings,
    "renderings, 1 or more": lambda films: max(1.0, on_renderings(films)),
    "worst rendering": least_loss,
    "worst rendering, 1 or more": lambda films: max(1.0, least_loss(films)),
}


def main(names: list[str], with_test: bool) -> None:
    """Print a table for each experiment, and the mean over all of them."""
    tables = {}
    for name in names:
        tables[name] = measure(name, with_test)
        print(f"\n{name}\n{tables[name].to_string(float_format='{:.4f}'.format)}", flush=True)
    together = pd.concat(tables.values()).groupby(level=0, sort=False).mean()
    print(f"\nmean of {len(names)}\n{together.to_string(float_format='{:.4f}'.format)}")


def measure(name: str, with_test: bool) -> pd.DataFrame:
    """A row for each rule: its temperature, and log loss and calibration error on renderings that it was not given."""
    with opened(name) as (classifier, images, val):
        rendered = score_renderings(classifier, val, images, 64, len(val), 42)
    films = read_predictions(dvc.api.read("reports/predictions.csv", rev=name))
    test = films[films.split == "test"]
    rows = {}
    for rule, fit in RULES.items():
        row = {"temperature": fit(rendered)} | hold_out(rendered, fit)
        if with_test:
            row |= {f"test {key}": value for key, value in judge(rendered, test, row["temperature"]).items()}
        rows[rule] = row
    return pd.DataFrame(rows).T


def hold_out(rendered: pd.DataFrame, fit: Rule) -> dict[str, float]:
    """Each rendering judged by what the others give: means over the renderings, and the worst log loss."""
    judged = []
    for held in rendered.rendering.unique():
        others, films = rendered[rendered.rendering != held], rendered[rendered.rendering == held]
        judged.append(judge(others, films, fit(others)))
    table = pd.DataFrame(judged)
    return {**table.mean(), "worst loss": table.loss.max()}


def judge(given: pd.DataFrame, films: pd.DataFrame, temperature: float) -> dict[str, float]:
    """Log loss and calibration error of `films` at a temperature; the share answered, and wrong among the answers,
    outside the band that all of `given`, or its films as they are, allow."""
    probability = to_probability(films.logit, temperature)
    row = {"loss": log_loss(films.label.to_numpy(), films.logit.to_numpy(), temperature)}
    row["ece"] = expected_calibration_error(films.label, probability, np.linspace(0, 1, BINS + 1))
    plain = given[given.rendering == PLAIN] if (given.rendering == PLAIN).any() else given
    point = choose_operating_point(
        plain.label, to_probability(plain.logit, temperature), plain.patient, "min_sensitivity", 0.95
    )
    for kind, source in (("val", plain), ("all", given)):
        scores = to_probability(source.logit, temperature)
        band = choose_abstention(source.label, scores, point.threshold, TARGET_ERROR)
        answered = is_answered(probability, band)
        wrong = is_called(probability, point.threshold) != (films.label == 1)
        row |= {f"answered {kind}": answered.mean(), f"wrong {kind}": wrong[answered].mean()}
    return row


def log_loss(label: np.ndarray, logit: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood of labels 0 and 1 under log-odds divided by the temperature."""
    return float(np.logaddexp(0, np.where(label == 1, -logit, logit) / temperature).mean())


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name != "--test"]
    if not chosen:
        sys.exit("name experiments: python docs/calibration.py [--test] EXPERIMENT ...")
    main(chosen, "--test" in sys.argv)
