import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar

from pulmo.base.errors import UserError
from pulmo.metrics.comparison import (
    McNemar,
    compare_models,
    delong_test,
    mcnemar_test,
    pair_predictions,
    read_predictions,
)
from pulmo.metrics.discrimination import METRIC_NAMES, discriminate


def two_models(n=300, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    shared = labels * 1.5 + rng.normal(size=n)
    a, b = shared + rng.normal(size=n), shared + 0.5 * rng.normal(size=n)
    return labels, rng.integers(0, n // 2, n), *(np.round(s) if ties else s for s in (a, b))


def test_delong_by_hand():
    """Shares of NORMAL beaten: a 1, 1, 1/2; b 1/2, 1, 1/2. Shares above NORMAL: a 2/3, 1; b 1/3, 1.
    So the AUROCs are 5/6 and 4/6, and the variance of the difference is (1/12)/3 + (1/18)/2 = 1/18."""
    found = delong_test([1, 1, 1, 0, 0], [0.9, 0.8, 0.4, 0.5, 0.3], [0.6, 0.7, 0.2, 0.65, 0.1])
    assert (found.auroc_a, found.auroc_b) == pytest.approx((5 / 6, 4 / 6))
    assert found.z == pytest.approx((-1 / 6) / np.sqrt(1 / 18))
    assert found.p == pytest.approx(0.4795, abs=1e-4)
    half = 1.959964 * np.sqrt(1 / 18)
    assert (found.low, found.high) == pytest.approx((-1 / 6 - half, -1 / 6 + half))


@pytest.mark.parametrize("ties", [False, True])
def test_delong_equals_its_definition_pair_by_pair(ties):
    labels, _, a, b = two_models(120, ties=ties)
    wins = [np.sign(s[labels == 1][:, None] - s[labels == 0]) / 2 + 0.5 for s in (a, b)]
    m, n = wins[0].shape
    positives, negatives = np.cov([w.mean(axis=1) for w in wins]), np.cov([w.mean(axis=0) for w in wins])
    covariance = positives / m + negatives / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    found = delong_test(labels, a, b)
    assert found.auroc_a == pytest.approx(roc_auc_score(labels, a))
    assert found.z == pytest.approx((wins[1].mean() - wins[0].mean()) / np.sqrt(variance))
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.z)))


def test_delong_agrees_with_the_bootstrap_where_films_are_independent():
    labels, _, a, b = two_models()
    delong = delong_test(labels, a, b)
    bootstrap = compare_models(labels, np.arange(len(labels)), (a, b), (a > 1, b > 1)).metrics["auroc"].difference
    assert (bootstrap.low, bootstrap.high) == pytest.approx((delong.low, delong.high), abs=0.006)


def test_delong_of_equal_and_of_too_few():
    labels, _, a, _ = two_models()
    same = delong_test(labels, a, np.exp(a))
    assert (same.difference, same.z, same.p) == (0, 0, 1)
    certain = delong_test([1, 1, 0, 0], [0.1, 0.1, 0.9, 0.9], [0.9, 0.9, 0.1, 0.1])
    assert (certain.difference, certain.p) == (1, 0)
    with pytest.raises(ValueError, match="two films of each class"):
        delong_test([1, 0, 0], [1, 2, 3], [1, 2, 3])


@pytest.mark.parametrize("seed", range(3))
def test_mcnemar_equals_statsmodels(seed):
    labels, _, a, b = two_models(seed=seed)
    right_a, right_b = (a > 1) == labels, (b > 1) == labels
    table = [[sum(right_a & right_b), sum(right_a & ~right_b)], [sum(~right_a & right_b), sum(~right_a & ~right_b)]]
    found = mcnemar_test(labels, a > 1, b > 1)
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert (found.only_a_right, found.only_b_right) == (table[0][1], table[1][0])


def test_mcnemar_of_equal_decisions_is_one():
    assert mcnemar_test([1, 0], [1, 1], [1, 1]) == McNemar(0, 0, 1.0)


def test_differences_are_paired_over_the_same_patients():
    labels, patients, a, b = two_models()
    found = compare_models(labels, patients, (a, b), (a > 1, b > 1), seed=4)
    alone = [discriminate(labels, s, s > 1, patients, seed=4) for s in (a, b)]
    for name in METRIC_NAMES:
        row = found.metrics[name]
        assert (row.a, row.b) == (alone[0][0][name].value, alone[1][0][name].value)
        assert row.difference.value == pytest.approx(row.b - row.a)
        gap = np.percentile(alone[1][1][name] - alone[0][1][name], [2.5, 97.5])
        assert (row.difference.low, row.difference.high) == pytest.approx(tuple(gap))
    auroc = found.metrics["auroc"].difference
    separate = sum(np.ptp(np.percentile(s[1]["auroc"], [2.5, 97.5])) ** 2 for s in alone) ** 0.5
    assert auroc.high - auroc.low < 0.9 * separate  # pairing pays
    assert found.disagreements == [i for i in range(300) if (a[i] > 1) != (b[i] > 1)]
    assert found.delong.difference == pytest.approx(auroc.value)


def test_comparison_of_one_class_has_no_delong():
    found = compare_models([1] * 6, range(6), (range(6), range(6)), ([1] * 6, [1, 1, 1, 1, 1, 0]), resamples=20)
    assert found.delong is None
    assert found.metrics["auroc"].difference.value is None
    assert found.metrics["sensitivity"].difference.value == pytest.approx(-1 / 6)


def test_tables_are_paired_by_path_and_refused_when_they_differ():
    a = pd.DataFrame({"path": ["x", "y", "z"], "label": [0, 1, 1], "logit": [1, 2, 3]})
    first, second = pair_predictions(a, a.iloc[::-1].assign(logit=[30, 20, 10]))
    assert first.path.tolist() == second.path.tolist() == ["x", "y", "z"]
    assert second.logit.tolist() == [10, 20, 30]
    with pytest.raises(UserError, match=r"test sets differ: 2 films .* such as w"):
        pair_predictions(a, a.assign(path=["w", "y", "z"]))
    with pytest.raises(UserError, match="1 films differently, such as y"):
        pair_predictions(a, a.assign(label=[0, 0, 1]))


def test_names_of_predictions_stay_text():
    text = "path,split,patient,label,logit\n1,test,NA,1,0.5\n2,test,007,0,-1\n3,test,7,0,-2.5\n"
    table = read_predictions(text)
    assert table.patient.tolist() == ["NA", "007", "7"]
    assert table.path.tolist() == ["1", "2", "3"]
    assert table.logit.tolist() == [0.5, -1, -2.5]


@pytest.mark.parametrize("logit", ["nan", "inf", "", "high"])
def test_predictions_that_are_no_numbers_are_damaged(logit):
    with pytest.raises(UserError, match="the predictions are damaged"):
        read_predictions(f"path,patient,logit\na.png,1,0.5\nb.png,2,{logit}\n")
