from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from pulmo.metrics.bootstrap import resample
from pulmo.metrics.curves import decision_curve, precision_recall_curve, prevalence_curve, risk_coverage, roc_curve
from pulmo.metrics.discrimination import discriminate


def films(n=300, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 5 > 1).astype(int)
    scores = 1 / (1 + np.exp(-(labels * 3 - 1.5 + rng.normal(0, 1.5, n))))
    return labels, np.round(scores, 1) if ties else scores, np.arange(n) // 10 * 10 + labels


@pytest.mark.parametrize("ties", [False, True])
def test_roc_equals_scikit_learn(ties):
    labels, scores, patients = films(ties=ties)
    curve = roc_curve(labels, scores, patients, resamples=200)
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    assert (curve["fpr"], curve["tpr"]) == (pytest.approx(fpr), pytest.approx(tpr))
    within = np.interp(curve["band_fpr"], curve["fpr"], curve["tpr"])
    assert (np.array(curve["low"]) <= within + 0.02).all()
    assert (np.array(curve["high"]) >= within - 0.02).all()


def test_the_roc_band_is_that_of_weighted_curves_of_scikit_learn():
    labels, scores, patients = films()
    curve = roc_curve(labels, scores, patients, resamples=200, seed=5)
    rows = []
    for weights in np.concatenate(list(resample(labels, patients, 200, seed=5))):
        fpr, tpr, _ = sk.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
        rows.append(np.interp(curve["band_fpr"], fpr, tpr))
    low, high = np.percentile(rows, [2.5, 97.5], axis=0)
    assert (curve["low"], curve["high"]) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("ties", [False, True])
def test_precision_recall_equals_scikit_learn(ties):
    labels, scores, _ = films(ties=ties)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    curve = precision_recall_curve(labels, scores)
    assert curve["recall"] == pytest.approx(recall[:-1][::-1])
    assert curve["precision"] == pytest.approx(precision[:-1][::-1])


def test_curves_that_need_a_class_say_so():
    with pytest.raises(ValueError, match="both classes"):
        roc_curve([1, 1], [0.1, 0.2], [1, 2])
    with pytest.raises(ValueError, match="PNEUMONIA"):
        precision_recall_curve([0, 0], [0.1, 0.2])


def test_predictive_values_follow_bayes_and_meet_the_films_own():
    labels, scores, patients = films()
    estimates, replicates = discriminate(labels, scores, scores > 0.5, patients, resamples=500)
    sensitivity, specificity = estimates["sensitivity"].value, estimates["specificity"].value
    curve = prevalence_curve(estimates, replicates, [0.01, labels.mean()])
    assert curve["ppv"][0] == pytest.approx(sensitivity * 0.01 / (sensitivity * 0.01 + (1 - specificity) * 0.99))
    for name in ("ppv", "npv"):
        assert curve[name][1] == pytest.approx(estimates[name].value)
        assert curve[f"{name}_low"][1] == pytest.approx(estimates[name].low, abs=0.02)
        assert curve[f"{name}_high"][1] == pytest.approx(estimates[name].high, abs=0.02)
    whole = prevalence_curve(estimates, replicates)
    assert (len(whole["ppv"]), whole["prevalence"][0], whole["prevalence"][-1]) == (60, 0.01, 0.6)
    assert np.all(np.diff(whole["ppv"]) > 0)
    assert np.all(np.diff(whole["npv"]) < 0)


def test_predictive_values_without_one_class_are_undefined():
    curve = prevalence_curve(*discriminate([1, 1], [0.1, 0.9], [False, True], [1, 2], resamples=20))
    assert np.isnan(curve["ppv"]).all()
    assert np.isnan(curve["ppv_low"]).all()


def test_a_sensitivity_of_one_makes_no_predictive_value_certain():
    labels = np.repeat([1, 0], 30)
    called = (labels == 1) | (np.arange(60) > 50)
    estimates, replicates = discriminate(labels, called, called, np.arange(60), resamples=300)
    curve, sensitivity = prevalence_curve(estimates, replicates, [0.3]), estimates["sensitivity"]
    assert (sensitivity.value, curve["npv"], curve["npv_high"]) == (1, [1], [1])
    assert 0.9 < curve["npv_low"][0] < 0.97
    certain = prevalence_curve(estimates | {"sensitivity": replace(sensitivity, low=1.0)}, replicates, [0.3])
    assert certain["npv_low"] == [1]


def test_net_benefit_by_its_definition():
    labels, scores, patients = films()
    curve = decision_curve(labels, scores, patients, resamples=100)
    for at in (0, 29, 79):
        threshold = curve["threshold"][at]
        called, odds = scores >= threshold, threshold / (1 - threshold)
        tp, fp = (called & (labels == 1)).sum(), (called & (labels == 0)).sum()
        assert curve["model"][at] == pytest.approx((tp - fp * odds) / 300)
        assert curve["treat_all"][at] == pytest.approx(labels.mean() - (1 - labels.mean()) * odds)
        assert curve["low"][at] - 1e-9 <= curve["model"][at] <= curve["high"][at] + 1e-9
    assert curve["threshold"] == pytest.approx(np.arange(1, 100) / 100)


def test_risk_coverage_by_hand():
    """Surest first the answers are right, wrong, right, right: risks 0, 1/2, 1/3, 1/4."""
    found = risk_coverage([1, 0, 1, 0], [1, 1, 1, 0], [4, 3, 2, 1], range(4), resamples=50)
    assert found.coverage == [0.25, 0.5, 0.75, 1]
    assert found.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    assert found.aurc.value == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found.aurc_random == 0.25
    assert found.aurc_best == pytest.approx(1 / 16)


def test_risk_coverage_does_not_hang_on_the_order_of_ties():
    labels, called, sure = np.array([1, 0, 1, 0]), np.array([1, 1, 1, 0]), np.array([2, 1, 1, 1])
    orders = ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])
    risks = [risk_coverage(labels[o], called[o], sure[o], range(4), 5).risk for o in map(list, orders)]
    assert risks[0] == pytest.approx([0, 1 / 6, 2 / 9, 1 / 4])
    assert risks[0] == risks[1] == risks[2]
    constant = risk_coverage(labels, called, np.ones(4), range(4), 5)
    assert constant.aurc.value == constant.aurc_random == 0.25


def test_aurc_has_an_interval_over_patients():
    labels, scores, patients = films()
    found = risk_coverage(labels, scores > 0.5, np.abs(scores - 0.5), patients, resamples=300)
    assert found.aurc_best < found.aurc.low < found.aurc.value < found.aurc.high
    assert found.aurc.value < found.aurc_random
