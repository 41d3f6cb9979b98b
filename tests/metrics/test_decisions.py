import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_curve

from pulmo.base.errors import UserError
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.calibration import to_probability
from pulmo.metrics.decisions import (
    choose_abstention,
    choose_operating_point,
    confidence,
    evaluate_abstention,
    is_answered,
)


def films(n=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 > 0).astype(int)
    return labels, to_probability(labels * 3 - 1.5 + rng.normal(0, 1.5, n)), np.arange(n) // 2 * 2 + labels


def choose(labels, scores, patients, policy, **settings):
    return choose_operating_point(labels, scores, patients, policy, resampling=Resampling(200), **settings)


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95, 0.999])
def test_min_sensitivity_takes_the_highest_threshold_that_reaches_it(target):
    labels, scores, patients = films()
    point = choose(labels, scores, patients, "min_sensitivity", min_sensitivity=target)
    positives = scores[labels == 1]
    assert (positives >= point.threshold).mean() >= target
    higher = scores[scores >= point.threshold].min() + 1e-12
    assert (positives >= higher).mean() < target
    assert point.low <= point.threshold <= point.high
    assert point.low < point.high


def test_a_reached_target_is_not_missed_by_rounding():
    assert 0.55 * 100 > 55  # in floating point
    labels, scores = np.array([1] * 100 + [0] * 5), np.append(np.arange(100) / 100 + 0.005, np.zeros(5))
    point = choose(labels, scores, range(105), "min_sensitivity", min_sensitivity=0.55)
    assert (scores[:100] >= point.threshold).sum() == 55


def test_youden_and_f1_are_the_best_of_all_thresholds():
    labels, scores, patients = films(120)
    fpr, tpr, _ = roc_curve(labels, scores)
    youden = choose(labels, scores, patients, "youden").threshold
    called = scores >= youden
    assert called[labels == 1].mean() - called[labels == 0].mean() == pytest.approx((tpr - fpr).max())
    best = max(f1_score(labels, scores >= threshold) for threshold in np.unique(scores))
    assert f1_score(labels, scores >= choose(labels, scores, patients, "f1").threshold) == pytest.approx(best)


def test_thresholds_lie_midway_and_equal_goods_take_the_highest():
    assert choose([1, 1, 0, 0], [0.9, 0.7, 0.3, 0.1], range(4), "youden").threshold == pytest.approx(0.5)
    tied = choose([1, 0, 1, 0], [0.8, 0.6, 0.4, 0.2], range(4), "youden")  # .7 and .3 are equally good
    assert tied.threshold == pytest.approx(0.7)
    near = np.array([0.5, np.nextafter(0.5, 1)])
    assert choose([0, 1], near, range(2), "youden").threshold == near[1]
    lowest = choose([1, 0], [0.2, 0.4], range(2), "min_sensitivity").threshold  # all called PNEUMONIA
    assert 0.199 < lowest < 0.2 - 1e-5, "another runtime, which differs in the seventh digit, flips no film"


def test_tied_scores_are_called_together():
    labels, scores = np.array([1, 1, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    point = choose(labels, scores, range(5), "min_sensitivity", min_sensitivity=0.6)
    assert point.threshold == pytest.approx(0.3)
    assert 0.399 < choose(labels, np.full(5, 0.4), range(5), "f1").threshold < 0.4


def test_fixed_is_as_given_and_needs_no_films_of_both_classes():
    point = choose([1, 1], [0.2, 0.4], range(2), "fixed", threshold=0.5)
    assert (point.threshold, point.low, point.high) == (0.5, 0.5, 0.5)


def test_the_spread_of_the_threshold_shrinks_with_more_patients():
    few, many = (choose(*films(n), "min_sensitivity") for n in (60, 3000))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_refusals():
    with pytest.raises(UserError, match="holds only NORMAL"):
        choose([0, 0], [0.1, 0.2], range(2), "youden")
    with pytest.raises(UserError, match="holds only PNEUMONIA"):
        choose([1, 1], [0.1, 0.2], range(2), "min_sensitivity")
    with pytest.raises(ValueError, match="unknown; choose one of min_sensitivity"):
        choose([0, 1], [0.1, 0.2], range(2), "best")


def test_the_abstention_band_is_the_narrowest_that_reaches_the_target():
    labels, probabilities, _ = films()
    band = choose_abstention(labels, probabilities, 0.4, target_error=0.03)
    answered = is_answered(probabilities, band)
    wrong = (probabilities >= 0.4) != (labels == 1)
    assert band.reached
    assert wrong.mean() > 0.03
    assert wrong[answered].mean() <= 0.03
    sure = confidence(probabilities, 0.4)
    for width in sure[~answered]:  # answering any film more, with all that are as sure, would break the target
        assert wrong[sure >= width].mean() > 0.03
    assert sure[answered].min() > sure[~answered].max()
    middle = (confidence(band.low, 0.4) + confidence(band.high, 0.4)) / 2
    assert confidence(band.low, 0.4) == pytest.approx(middle)
    assert sure[~answered].max() < middle < sure[answered].min()


def test_no_band_where_none_is_needed_and_no_answer_where_none_is_good_enough():
    all_right = choose_abstention([1, 1, 0], [0.9, 0.8, 0.1], 0.5, 0.01)
    assert (all_right.low, all_right.high, all_right.reached) == (0.5, 0.5, True)
    assert is_answered([0.1, 0.5, 0.9], all_right).all()
    all_wrong = choose_abstention([0, 1], [0.9, 0.2], 0.5, 0.01)
    assert not all_wrong.reached
    assert not is_answered([0.0, 0.5, 1.0], all_wrong).any()


def test_what_the_answers_are_worth():
    labels, probabilities, patients = films()
    called, answered = probabilities >= 0.4, np.abs(probabilities - 0.4) > 0.2
    found = evaluate_abstention(labels, called, answered, patients, resamples=200)
    assert found["coverage"].value == pytest.approx(answered.mean())
    assert found["error"].value == pytest.approx((called != labels)[answered].mean())
    assert found["sensitivity"].value == pytest.approx(called[answered & (labels == 1)].mean())
    assert found["specificity"].value == pytest.approx(1 - called[answered & (labels == 0)].mean())
    films_of = {"error": answered, "sensitivity": answered & (labels == 1), "specificity": answered & (labels == 0)}
    assert {name: found[name].films for name in films_of} == {name: rows.sum() for name, rows in films_of.items()}
    assert all(row.low <= row.value <= row.high for row in found.values())
    nothing = evaluate_abstention(labels, called, np.zeros(400, dtype=bool), patients, resamples=20)
    assert nothing["coverage"].value == 0
    assert nothing["error"].value is None
