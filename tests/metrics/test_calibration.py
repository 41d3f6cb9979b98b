import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from statsmodels.stats.proportion import proportion_confint

from pulmo.metrics.bootstrap import BLOCK, bootstrap
from pulmo.metrics.calibration import evaluate_calibration, fit_temperature, to_probability
from pulmo.metrics.reliability import ReliabilityBins, errors_with_chance, expected_calibration_error


def reliability_bins(labels, probability, edges, patients, resamples=2000):
    label, patient = np.asarray(labels) == 1, np.asarray(patients)
    bins = ReliabilityBins(label, probability, edges)
    found = bootstrap(lambda w: {"observed": bins.observe(w)}, np.ones_like(label), patient, resamples, 0)
    return bins.report(*(values["observed"] for values in found), patient)


def films(n=800, seed=0, sharpness=1.0, shift=0.0):
    """Labels drawn from the probabilities of the log-odds, which are then distorted."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 2, n)
    labels = (rng.random(n) < expit(logits)).astype(int)
    return labels, logits * sharpness + shift, np.arange(n) // 2


def test_a_probability_is_the_logistic_function_at_every_size():
    logits = np.array([-1e6, -745, -40, -1e-9, 0, 2.5, 40, 1e6])
    assert to_probability(logits, 0.5) == pytest.approx(expit(logits / 0.5), rel=1e-14)
    assert to_probability([-1e6, 0, 1e6]).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("sharpness", [1.3, 3])
def test_temperature_is_the_maximum_likelihood(sharpness):
    labels, logits, _ = films(sharpness=sharpness)
    slope = sm.Logit(labels, logits).fit(disp=0).params[0]  # no intercept: its one coefficient is 1/T
    fitted = fit_temperature(labels, logits)
    assert fitted.value == pytest.approx(1 / slope, rel=1e-4)
    assert fitted.value == pytest.approx(sharpness, rel=0.15)
    assert fitted.note == ""


def test_temperature_never_makes_answers_surer():
    labels, logits, _ = films(sharpness=0.4)
    fitted = fit_temperature(labels, logits)
    assert fitted.value == 1
    assert fitted.note == "kept at 1: 0.43, the best on validation, would make the answers surer"


def test_temperature_that_the_films_do_not_tell_stays_at_one():
    assert fit_temperature([0, 0, 1, 1], [-2, -1, 1, 2]).value == 1
    assert "perfectly separated" in fit_temperature([0, 0, 1, 1], [-2, -1, 1, 2]).note
    assert fit_temperature([1, 1], [0.1, 3]).value == 1
    assert "one class" in fit_temperature([0, 0], [0.1, 3]).note


def test_temperature_is_bounded_and_says_so():
    labels, logits, _ = films()
    upside_down = fit_temperature(1 - labels, logits)
    assert upside_down.value == pytest.approx(10, rel=1e-3)
    assert "bound" in upside_down.note
    assert fit_temperature(labels, np.zeros(len(labels))).value == pytest.approx(1, abs=9)


def test_calibration_errors_of_many_films_are_those_of_sets_drawn_at_once():
    labels, logits, patients = films(5000)
    assert 500 * len(labels) > BLOCK, "too many for one block"
    probability, edges = expit(logits), [np.linspace(0, 1, 16), np.linspace(0, 1, 6)]
    fine, coarse = errors_with_chance(labels == 1, probability, patients, edges, 3)
    drawn = np.random.default_rng(3).random((500, 2500))[:, patients] < probability
    for error, ends in ((fine, edges[0]), (coarse, edges[1])):
        assert error.value == pytest.approx(expected_calibration_error(labels, probability, ends))
        by_chance = [expected_calibration_error(ill, probability, ends) for ill in drawn]
        assert error.chance_high == pytest.approx(np.percentile(by_chance, 95), rel=1e-9)
    assert fine.chance_high > coarse.chance_high  # the fewer films in a bin, the more chance makes of it


def test_scores_equal_scikit_learn_and_statsmodels():
    labels, logits, patients = films(sharpness=2, shift=0.5)
    report = evaluate_calibration(labels, logits, 1.7, patients, resamples=300)
    for name, temperature in (("before", 1), ("after", 1.7)):
        probability = to_probability(logits, temperature)
        found = getattr(report, name)
        assert probability == pytest.approx(1 / (1 + np.exp(-logits / temperature)))
        assert found.brier.value == pytest.approx(brier_score_loss(labels, probability))
        assert found.log_loss.value == pytest.approx(log_loss(labels, probability))
        intercept, slope = sm.Logit(labels, sm.add_constant(logits / temperature)).fit(disp=0).params
        assert found.slope.value == pytest.approx(slope, rel=1e-6)
        assert found.intercept.value == pytest.approx(intercept, rel=1e-6)
        for key in ("brier", "slope", "intercept"):
            estimate = getattr(found, key)
            assert estimate.low < estimate.value < estimate.high
    errors = sm.Logit(labels, sm.add_constant(logits)).fit(disp=0).conf_int()
    for key, bounds in zip(("intercept", "slope"), errors, strict=True):
        estimate = getattr(report.before, key)
        assert estimate.high - estimate.low == pytest.approx(np.ptp(bounds), rel=0.25)


def test_slope_and_intercept_are_undefined_where_nothing_identifies_them():
    report = evaluate_calibration([0, 0, 1, 1], [-2.0, -1, 1, 2], 1.0, range(4), resamples=20)
    assert report.before.slope.value is None
    assert report.before.brier.value < 0.1
    assert evaluate_calibration([0, 1], [1.0, 1], 1.0, range(2), resamples=5).after.slope.value is None
    assert evaluate_calibration([1, 1], [1.0, 2], 1.0, range(2), resamples=5).after.slope.value is None


def test_ece_by_hand():
    """Below .5: mean probability .8/3, observed 1/3, gap .0667 for 3 films; above: .8 and .5, gap .3 for 2 films."""
    labels, probabilities = [0, 0, 1, 1, 0], [0.1, 0.3, 0.4, 0.7, 0.9]
    assert expected_calibration_error(labels, probabilities, [0, 0.5, 1]) == pytest.approx((3 * 0.2 / 3 + 2 * 0.3) / 5)
    assert expected_calibration_error([1, 0], [0.5, 0.4], [0, 0.5, 1]) == pytest.approx(0.05)  # an edge belongs below
    assert expected_calibration_error([1, 0], [1.0, 0.0], [0, 0.5, 1]) == 0


def test_bins_equal_scikit_learn_and_statsmodels():
    labels, logits, _ = films()
    probability = to_probability(logits)
    edges = np.linspace(0, 1, 16)
    rows = reliability_bins(labels, probability, edges, np.arange(800))
    observed, mean = calibration_curve(labels, probability, n_bins=15)
    assert [row.observed for row in rows] == pytest.approx(observed)
    assert [row.probability for row in rows] == pytest.approx(mean)
    assert sum(row.films for row in rows) == 800
    for row in rows:
        expected = proportion_confint(round(row.observed * row.films), row.films, method="wilson")
        assert (row.low, row.high) == pytest.approx(expected, abs=0.06)  # films resampled, not Wilson's formula
        assert row.above < row.probability <= row.up_to
    total = sum(row.films * abs(row.observed - row.probability) for row in rows) / 800
    assert expected_calibration_error(labels, probability, edges) == pytest.approx(total)


def test_a_bin_of_all_films_is_as_uncertain_as_their_labels():
    labels = np.arange(100) % 5 > 0
    (row,) = reliability_bins(labels, np.full(100, 0.7), [0, 0.5, 1], np.arange(100))
    assert (row.low, row.high) == pytest.approx(proportion_confint(80, 100, method="wilson"), abs=0.02)


def test_the_report_bins_by_fifteen_equal_widths():
    labels, logits, patients = films()
    for name, temperature in (("before", 1), ("after", 2)):
        found = getattr(evaluate_calibration(labels, logits, 2, patients, resamples=5), name)
        probability, edges = to_probability(logits, temperature), np.linspace(0, 1, 16)
        assert found.bins == reliability_bins(labels, probability, edges, patients, 5)
        assert found.ece.value == expected_calibration_error(labels, probability, edges)


def test_bins_and_chance_count_patients():
    """Four films each of 100 patients, as sure as the children are ill: more films, but no more is known."""
    labels, logits, _ = films(100, sharpness=1)
    labels, logits, patients = (np.repeat(values, 4) for values in (labels, logits, np.arange(100)))
    together, apart = (
        evaluate_calibration(labels, logits, 1.0, groups, resamples=300).after for groups in (patients, np.arange(400))
    )
    assert together.ece.chance_high == pytest.approx(2 * apart.ece.chance_high, rel=0.25)
    for row, alone in zip(together.bins, apart.bins, strict=True):
        assert (row.films, row.patients) == (alone.films, alone.films // 4)
        assert row.high - row.low > 1.2 * (alone.high - alone.low)


def test_equal_mass_ece_equals_scikit_learns_quantile_bins():
    labels, logits, patients = films(sharpness=2)
    observed, mean = calibration_curve(labels, to_probability(logits), n_bins=15, strategy="quantile")
    found = evaluate_calibration(labels, logits, 1.0, patients, resamples=5).before.ece_mass.value
    assert found == pytest.approx(np.abs(observed - mean).mean(), rel=0.02)  # 800 / 15 is not whole


def test_ece_is_told_from_chance():
    for sharpness, calibrated in ((1, True), (3, False)):
        labels, logits, patients = films(seed=2, sharpness=sharpness)
        found = evaluate_calibration(labels, logits, 1.0, patients, resamples=5).before
        for key in ("ece", "ece_mass"):
            assert (getattr(found, key).value < getattr(found, key).chance_high) == calibrated
    labels, logits, patients = films(seed=2, sharpness=3)
    report = evaluate_calibration(labels, logits, fit_temperature(labels, logits).value, patients, resamples=5)
    assert report.after.ece.value < report.after.ece.chance_high
    assert report.after.log_loss.value < report.before.log_loss.value


def test_constant_and_extreme_scores_do_not_crash():
    for logits in (np.zeros(10), np.full(10, 800.0), np.array([-800.0, 800.0] * 5)):
        report = evaluate_calibration([0, 1] * 5, logits, 1.0, range(10), resamples=5)
        assert sum(row.films for row in report.before.bins) == 10
        assert np.isfinite(report.before.ece_mass.value)
