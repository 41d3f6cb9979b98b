import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from pulmo.metrics.bootstrap import BLOCK, bootstrap, resample
from pulmo.metrics.discrimination import METRIC_NAMES, discriminate, discrimination
from pulmo.metrics.estimates import Estimate, ValueInInterval, estimate_difference, estimate_text, probability_text
from pulmo.metrics.subgroups import evaluate_subgroups


def films(n=624, seed=0, ties=False):
    """Labels, scores and patients like those of a real test set: pneumonia patients have several films."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) >= 0.4 * n).astype(int)
    patients = np.where(labels == 1, n + np.arange(n) // 3, np.arange(n))
    scores = labels * 2 + rng.normal(size=n) + rng.normal(size=2 * n)[patients]
    return labels, np.round(scores) if ties else scores, patients


def by_sklearn(labels, scores, called, weights=None):
    sensitivity, specificity = (
        sk.recall_score(labels, called, pos_label=side, sample_weight=weights) for side in (1, 0)
    )
    ppv, npv = (sk.precision_score(labels, called, pos_label=side, sample_weight=weights) for side in (1, 0))
    return {
        "auroc": sk.roc_auc_score(labels, scores, sample_weight=weights),
        "auprc": sk.average_precision_score(labels, scores, sample_weight=weights),
        "accuracy": sk.accuracy_score(labels, called, sample_weight=weights),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called, sample_weight=weights),
        "f1": sk.f1_score(labels, called, sample_weight=weights),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ppv,
        "npv": npv,
        "mcc": sk.matthews_corrcoef(labels, called, sample_weight=weights),
    }


@pytest.mark.parametrize("ties", [False, True])
def test_every_metric_equals_scikit_learn_also_under_weights(ties):
    labels, scores, patients = films(ties=ties)
    called = scores > 1
    estimates, _ = discriminate(labels, scores, called, patients, resamples=10)
    assert tuple(estimates) == METRIC_NAMES
    for name, expected in by_sklearn(labels, scores, called).items():
        assert estimates[name].value == pytest.approx(expected, abs=1e-12), name
    statistic = discrimination(labels == 1, scores, called)
    for weights in next(resample(labels, patients, 5, seed=1)):
        found = statistic(weights[None])
        for name, expected in by_sklearn(labels, scores, called, weights).items():
            assert found[name][0] == pytest.approx(expected, abs=1e-12), name


def test_patients_are_drawn_whole_and_within_their_class():
    labels, _, patients = films(60)
    mixed = np.where(np.isin(np.arange(60), (0, 59)), "both", patients.astype(str))
    weights = np.concatenate(list(resample(labels, mixed, 300, seed=0)))
    for patient in np.unique(mixed):
        assert (np.ptp(weights[:, mixed == patient], axis=1) == 0).all()
    first = np.unique(mixed, return_index=True)[1]
    for chosen in (mixed == "both", (labels == 1) & (mixed != "both"), (labels == 0) & (mixed != "both")):
        counts = weights[:, [index for index in first if chosen[index]]]
        assert (counts.sum(axis=1) == counts.shape[1]).all()
    assert weights.mean() == pytest.approx(1, abs=0.03)
    assert weights.var(axis=0)[1:59].mean() == pytest.approx(1, abs=0.1)  # Poisson-like: drawn with replacement


def test_the_interval_is_that_of_a_plain_bootstrap_over_patients():
    labels, scores, patients = films(200)
    estimates, replicates = discriminate(labels, scores, scores > 1, patients, resamples=2000, seed=3)
    rng, plain = np.random.default_rng(0), []
    members = {patient: np.flatnonzero(patients == patient) for patient in np.unique(patients)}
    sides = [[patient for patient, rows in members.items() if labels[rows[0]] == side] for side in (0, 1)]
    for _ in range(1000):
        drawn = np.concatenate([members[p] for side in sides for p in rng.choice(side, len(side))])
        sick, well = (scores[drawn][labels[drawn] == side] for side in (1, 0))
        plain.append(((sick[:, None] > well).mean(), (sick > 1).mean()))
    for name, column in (("auroc", 0), ("sensitivity", 1)):
        low, high = np.percentile(np.array(plain)[:, column], [2.5, 97.5])
        assert (estimates[name].low, estimates[name].high) == pytest.approx((low, high), abs=0.012)
        assert np.std(replicates[name]) == pytest.approx(np.std(np.array(plain)[:, column]), rel=0.1)


def test_films_of_one_patient_count_less_than_films_of_many():
    labels, scores, patients = films(300)
    twice = [np.tile(values, 4) for values in (labels, scores, patients)]

    def width(patients):
        auroc = discriminate(twice[0], twice[1], twice[1] > 1, patients, resamples=500)[0]["auroc"]
        return auroc.high - auroc.low

    assert width(twice[2]) > 1.7 * width(np.arange(len(twice[0])))


def test_the_seed_decides_everything_and_blocks_nothing():
    labels, scores, patients = films(100)
    first, second, third = (discriminate(labels, scores, scores > 1, patients, 50, seed)[0] for seed in (1, 1, 2))
    assert first == second != third
    many = BLOCK // 100 + 50  # more resamples of 100 films than a block holds
    assert [len(block) for block in resample(labels, patients, many, seed=1)] == [BLOCK // 100, 50]
    assert len(discriminate(labels, scores, scores > 1, patients, many, 1)[1]["auroc"]) == many


def test_n_counts_the_films_that_the_metric_is_about():
    labels, scores, patients = films()
    called = scores > 1
    estimates, _ = discriminate(labels, scores, called, patients, resamples=10)
    for name, chosen in (("sensitivity", labels == 1), ("specificity", labels == 0), ("ppv", called), ("npv", ~called)):
        assert estimates[name].films == chosen.sum()
        assert estimates[name].patients == len(set(patients[chosen]))
    assert (estimates["mcc"].films, estimates["mcc"].patients) == (624, len(set(patients)))


def test_a_thousand_intervals_of_624_films_take_under_three_seconds():
    labels, scores, patients = films()
    start = time.process_time()
    discriminate(labels, scores, scores > 1, patients, resamples=2000)
    assert time.process_time() - start < 3


@pytest.mark.parametrize("side", [0, 1])
def test_one_class_only_leaves_the_rest_undefined_with_a_reason(side):
    labels, scores = np.full(20, side), np.linspace(-1, 1, 20)
    estimates, _ = discriminate(labels, scores, scores > 0, np.arange(20), resamples=50)
    assert estimates["accuracy"].value == 0.5
    missing = {"auroc", "auprc", "balanced_accuracy", "mcc", "specificity" if side else "sensitivity"}
    assert {name for name, e in estimates.items() if e.value is None} == missing
    assert estimates["auroc"].note == "needs films of both classes"
    assert all(estimates[name].low is None and estimates[name].note for name in missing)


def test_constant_scores_are_chance_without_an_interval():
    labels, _, patients = films(100)
    estimates, _ = discriminate(labels, np.zeros(100), np.zeros(100, dtype=bool), patients, resamples=50)
    assert estimates["auroc"].value == 0.5
    assert estimates["auroc"].low is None
    assert "every resample" in estimates["auroc"].note
    assert estimates["auprc"].value == pytest.approx(labels.mean())
    assert replace(estimates["ppv"], note="") == Estimate(None, None, None, 0, 0, "")
    assert estimates["mcc"].note == "needs both classes and both answers"


def test_a_proportion_of_one_gets_a_wilson_interval_over_patients():
    labels, patients = np.array([1] * 30 + [0] * 5), np.array([f"p{i // 3}" for i in range(30)] + list("abcde"))
    estimates, _ = discriminate(labels, labels.astype(float), labels == 1, patients, resamples=50)
    low, high = proportion_confint(10, 10, method="wilson")  # ten patients, not thirty films
    assert (estimates["sensitivity"].low, estimates["sensitivity"].high) == pytest.approx((low, high))
    assert "Wilson" in estimates["sensitivity"].note
    assert estimates["mcc"].low is None


@pytest.mark.parametrize("sign", [1, -1])
def test_an_auroc_of_one_or_zero_gets_the_interval_of_as_many_pairs_as_the_smaller_class_has_patients(sign):
    labels, patients = np.array([1] * 30 + [0] * 5), np.array([f"p{i // 3}" for i in range(30)] + list("aabcc"))
    auroc = discriminate(labels, sign * labels.astype(float), labels == 1, patients, resamples=50)[0]["auroc"]
    expected = proportion_confint(3 if sign > 0 else 0, 3, method="wilson")
    assert (auroc.low, auroc.high) == pytest.approx(expected)
    assert "Wilson interval over 3 patients" in auroc.note


@pytest.mark.parametrize(("first", "second"), [((45, 50), (30, 40)), ((50, 50), (38, 40)), ((0, 20), (20, 20))])
def test_a_difference_is_that_of_newcombe(first, second):
    def share(right, films):
        low, high = proportion_confint(right, films, method="wilson")
        return Estimate(right / films, low, high, films, films - 1)

    found = estimate_difference(share(*first), share(*second))
    expected = confint_proportions_2indep(*second, *first, method="newcomb")
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.value == pytest.approx(second[0] / second[1] - first[0] / first[1])
    assert (found.films, found.patients) == (first[1] + second[1], first[1] + second[1] - 2)


def test_a_difference_with_nothing_is_undefined():
    known, nothing = (Estimate(value, None, None, 2, 1) for value in (0.5, None))
    assert estimate_difference(known, nothing).value is estimate_difference(known, known).low is None
    assert estimate_difference(known, known).value == 0


def test_resamples_without_a_value_are_dropped_and_counted():
    labels = np.array([1, 1, 1, 0, 0, 0])
    called = np.array([True, False, False, True, False, False])
    estimates, replicates = discriminate(labels, called, called, np.arange(6), resamples=400)
    lost = int(np.isnan(replicates["ppv"]).sum())
    assert 0 < lost < 100  # (2/3)^6 = 9% of resamples call no film PNEUMONIA
    assert estimates["ppv"].note == f"undefined in {lost} of 400 resamples"
    assert estimates["ppv"].low == 0


def test_one_patient_is_no_basis_for_an_interval():
    estimates, _ = discriminate([1, 1, 0, 0], [3, 1, 2, 0], [1, 0, 1, 0], ["a"] * 4, resamples=20)
    assert estimates["auroc"].value == 0.75
    assert estimates["auroc"].low is estimates["sensitivity"].low is None
    assert estimates["auroc"].patients == 1


@pytest.mark.parametrize(
    ("labels", "scores", "patients", "message"),
    [
        ([0, 1], [0.1, np.nan], [1, 2], "1 of 2 scores are not finite"),
        ([0, 1], [0.1, np.inf], [1, 2], "not finite"),
        ([], [], [], "no film"),
        ([0, 1], [0.1, 0.2, 0.3], [1, 2], "equally long"),
        ([0, 1], [0.1, 0.2], [1], "equally long"),
        ([[0, 1]], [[0.1, 0.2]], [[1, 2]], "equally long"),
        ([0, 2], [0.1, 0.2], [1, 2], "0 .NORMAL. or 1"),
        ([0, np.nan], [0.1, 0.2], [1, 2], "0 .NORMAL. or 1"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(labels, scores, patients, message):
    with pytest.raises(ValueError, match=message):
        discriminate(labels, scores, np.zeros(len(labels), dtype=bool), patients)


def test_decisions_of_another_length_are_refused():
    with pytest.raises(ValueError, match="decisions"):
        discriminate([0, 1], [0.1, 0.2], [True], [1, 2])


def test_subgroups_of_one_class_are_ranked_against_all_of_the_other():
    labels, scores, patients = films()
    called = scores > 1
    viral = (labels == 1) & (patients % 2 == 0)
    tiny = np.isin(np.arange(624), (3, 600, 601))
    rows = evaluate_subgroups(labels, scores, called, patients, {"viral": viral, "tiny": tiny}, resamples=100)
    against = viral | (labels == 0)
    assert rows[0].against == "all NORMAL"
    assert rows[0].auroc.value == pytest.approx(sk.roc_auc_score(labels[against], scores[against]))
    assert rows[0].auroc.films == against.sum()
    assert rows[0].sensitivity.value == pytest.approx(called[viral].mean())
    assert rows[0].specificity.value is None
    assert (rows[1].films, rows[1].pneumonia, rows[1].against) == (3, 2, "its own films")
    assert rows[1].auroc.value == pytest.approx(sk.roc_auc_score(labels[tiny], scores[tiny]))
    gap, others = rows[0].gap["sensitivity"], (labels == 1) & ~viral
    assert gap.value == pytest.approx(called[viral].mean() - called[others].mean())
    assert gap.low < gap.value < gap.high
    assert gap.films == (labels == 1).sum()
    assert rows[0].gap["specificity"].value is None
    (whole,) = evaluate_subgroups(labels, scores, called, patients, {"all": np.ones(624, dtype=bool)}, resamples=10)
    assert whole.gap["sensitivity"].value is None
    with pytest.raises(ValueError, match="empty holds no film"):
        evaluate_subgroups(labels, scores, called, patients, {"empty": np.zeros(624, dtype=bool)})


def test_a_statistic_may_hold_several_values():
    value, replicates = bootstrap(
        lambda weights: {"sums": weights @ np.eye(4)[:, :3]}, [0, 1, 0, 1], [1, 2, 3, 4], 10, 0
    )
    assert value["sums"].tolist() == [1, 1, 1]
    assert replicates["sums"].shape == (10, 3)


def test_estimates_read_like_in_a_paper():
    assert estimate_text(ValueInInterval(0.97689, 0.0, 0.9893)) == "0.977 (0.000–0.989)"
    assert estimate_text(ValueInInterval(1.0, None, None), digits=2) == "1.00"
    assert estimate_text(ValueInInterval(None, None, None)) == "–"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.6874, 3, "0.687"),
        (0.6874, 2, "0.69"),
        (0.99996, 3, "0.99996"),
        (0.9996, 2, "0.9996"),
        (0.00004, 3, "0.00004"),
        (1.0, 3, "1.000"),
        (0.0, 2, "0.00"),
        (1 - 2**-53, 3, "> 0.99999"),
        (1e-9, 2, "< 0.0001"),
    ],
)
def test_a_probability_is_never_rounded_to_certainty(value, digits, text):
    assert probability_text(value, digits) == text
