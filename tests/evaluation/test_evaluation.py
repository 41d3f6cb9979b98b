import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from pulmo.base.errors import UserError
from pulmo.base.files import read_json, write_json
from pulmo.evaluation.probes.renderings import measure_renderings
from pulmo.evaluation.report import evaluate_predictions, headline, known_films, report_split, subgroup_masks
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.decisions import confidence
from pulmo.metrics.discrimination import METRIC_NAMES
from pulmo.metrics.estimates import to_json
from pulmo.metrics.locked import LockingRules
from pulmo.metrics.reliability import expected_calibration_error

RULES, RESAMPLING = LockingRules(), Resampling(200)


def evaluate(films, rendered=None, rules=RULES, resampling=RESAMPLING):
    """The content of evaluation.json and the decision."""
    report = evaluate_predictions(films, rendered, rules, resampling)
    return report.to_json(), report.locked


def predictions(seed=0):
    """Val and test films whose log-odds tell viral worst, and where NORMAL scores higher in test than in val."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, films in (("val", 160), ("test", 240)):
        for i in range(films):
            subtype = ("normal", "bacterial", "viral")[i % 3]
            number = i // 6
            series, mean = {
                "normal": ("NORMAL2-IM" if i % 2 else "IM", -2 + 1.5 * (split == "test")),
                "bacterial": ("bacteria", 3),
                "viral": ("virus", 1.5),
            }[subtype]
            kind = {"normal": f"{series}-{number:04d}-{i:04d}", "viral": f"person{number}_virus_{i}"}
            name = kind.get(subtype, f"person{number}_bacteria_{i}")
            label = int(subtype != "normal")
            patient = f"{series}-{split}-{number}"
            side, mode = int(rng.integers(300, 700)), "RGB" if i % 15 == 1 else "L"
            logit = mean + rng.normal(0, 1.4)
            rows.append((f"{split}/{name}.jpeg", split, patient, label, subtype, logit, side, side, mode))
    columns = ["path", "split", "patient", "label", "subtype", "logit", "width", "height", "mode"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def table():
    return predictions()


@pytest.fixture(scope="module")
def evaluated(table):
    return evaluate(table)


def test_the_report_can_be_recomputed_from_the_predictions(table, evaluated, tmp_path):
    write_json(tmp_path / "evaluation.json", evaluated[0])
    table.to_csv(tmp_path / "predictions.csv", index=False)
    report, films = read_json(tmp_path / "evaluation.json"), pd.read_csv(tmp_path / "predictions.csv")
    locked = report["locked"]
    for split in ("val", "test"):
        part = films[films.split == split]
        probability = 1 / (1 + np.exp(-part.logit / locked["temperature"]["value"]))
        called = probability >= locked["operating_point"]["threshold"]
        found = {name: estimate["value"] for name, estimate in report[split]["metrics"].items()}
        assert tuple(found) == METRIC_NAMES
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(part.label, part.logit))
        assert found["accuracy"] == pytest.approx((called == part.label).mean())
        assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(part.label, called))
        tn, fp, fn, tp = sk.confusion_matrix(part.label, called).ravel()
        assert report[split]["confusion"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
        after = report[split]["calibration"]["after"]
        assert after["brier"]["value"] == pytest.approx(sk.brier_score_loss(part.label, probability))
        band = locked["abstention"]
        answered = (probability <= band["low"]) | (probability >= band["high"])
        assert report[split]["selective"]["coverage"]["value"] == pytest.approx(answered.mean())
        assert report[split]["selective"]["error"]["value"] == pytest.approx((called != part.label)[answered].mean())
        counts = {key: report[split][key] for key in ("films", "patients", "pneumonia", "prevalence")}
        assert counts == {
            "films": len(part),
            "patients": part.patient.nunique(),
            "pneumonia": part.label.sum(),
            "prevalence": part.label.mean(),
        }


def test_test_films_decide_nothing(table, evaluated):
    test = table.split == "test"
    changed = table.assign(
        logit=table.logit.where(~test, -table.logit), label=table.label.where(~test, 1 - table.label)
    )
    report, locked = evaluate(changed)
    assert locked == evaluated[1]
    assert report["val"] == evaluated[0]["val"]
    assert report["test"] != evaluated[0]["test"]


def test_the_locked_values_keep_what_they_promise_on_val(table, evaluated):
    report, locked = evaluated
    val = table[table.split == "val"]
    probability, called = locked.decide(val.logit.to_numpy())
    assert called[val.label == 1].mean() >= 0.95
    assert report["val"]["selective"]["error"]["value"] <= 0.02
    assert report["locked"]["operating_point"]["threshold"] == locked.operating_point.threshold
    assert ((probability >= locked.operating_point.threshold) == called).all()
    band, threshold = locked.abstention, locked.operating_point.threshold
    assert band.low < threshold < band.high
    assert confidence(band.low, threshold) == pytest.approx(confidence(band.high, threshold))


def test_val_and_test_are_resampled_independently(table, evaluated):
    report, locked = evaluated
    for seed, split in enumerate(("val", "test")):
        alone = report_split(table[table.split == split], locked, Resampling(200, seed))
        assert to_json(alone) == report[split]


def test_the_gap_is_test_less_val_with_an_interval(evaluated):
    report = evaluated[0]
    for name in ("sensitivity", "specificity"):
        val, test = (report[split]["metrics"][name] for split in ("val", "test"))
        gap = report["gap"][name]
        assert gap["value"] == pytest.approx(test["value"] - val["value"])
        assert gap["low"] < gap["value"] < gap["high"]
        widths = [estimate["high"] - estimate["low"] for estimate in (val, test)]
        assert gap["high"] - gap["low"] == pytest.approx(np.hypot(*widths), rel=0.25)  # independent patients
    assert report["gap"]["specificity"]["high"] < 0


def test_a_sensitivity_of_one_on_val_is_not_taken_as_certain_by_the_gap(table):
    sure = table.assign(logit=table.logit.where((table.split == "test") | (table.label == 0), 9.0))
    report = evaluate(sure, None, LockingRules("fixed"), Resampling(100))[0]
    val, test = (report[split]["metrics"]["sensitivity"] for split in ("val", "test"))
    assert val["value"] == 1 > test["value"]
    gap = report["gap"]["sensitivity"]
    assert gap["high"] - gap["value"] == pytest.approx(np.hypot(test["high"] - test["value"], 1 - val["low"]))


def test_settings_reach_the_operating_point(table):
    _, locked = evaluate(table, None, LockingRules("fixed", 0.95, 0.3, 0.1), Resampling(100))
    assert locked.operating_point.threshold == 0.3
    assert locked.abstention.target_error == 0.1
    lenient = evaluate(table, None, LockingRules(min_sensitivity=0.6), Resampling(100))[1]
    assert (
        lenient.operating_point.threshold
        > evaluate(table, None, LockingRules(), Resampling(100))[1].operating_point.threshold
    )


def test_subgroups_follow_subtype_series_size_and_mode(table):
    test = table[table.split == "test"]
    masks = subgroup_masks(test)
    names = ["bacterial", "viral", "series IM", "series NORMAL2-IM", "small films", "middle-sized films", "large films"]
    assert list(masks) == [*names, "mode L", "mode RGB"]
    assert (masks["viral"] == (test.subtype == "viral")).all()
    assert (masks["series IM"] | masks["series NORMAL2-IM"]).sum() == (test.label == 0).sum()
    areas = test.width * test.height
    assert areas[masks["small films"]].max() < areas[masks["middle-sized films"]].min()
    assert sum(masks[f"{size} films"].sum() for size in ("small", "middle-sized", "large")) == len(test)
    assert not (masks["mode L"] & masks["mode RGB"]).any()


def test_what_all_films_share_makes_no_subgroup(table):
    test = table[table.split == "test"]
    same = test.assign(width=224, height=224, mode="RGB", path=[f"test/PNEUMONIA/a-{i}.png" for i in range(len(test))])
    assert list(subgroup_masks(same)) == ["bacterial", "viral"]
    one_series = test[~test.path.str.contains("NORMAL2")].drop(columns=["width", "height", "mode"])
    assert list(subgroup_masks(one_series)) == ["bacterial", "viral"]
    assert list(subgroup_masks(same.drop(columns=["width", "height", "mode"]).assign(subtype="unknown"))) == []


def test_other_columns_of_a_csv_make_subgroups(table):
    test = table[table.split == "test"].reset_index(drop=True)
    number = pd.Series(range(len(test))) // 3  # each of normal, bacterial and viral
    films = test.assign(
        **{
            "csv.sex": number.map(lambda n: ("F", "M", "")[n % 3] if n else "rare"),
            "csv.patient age": number.map(lambda n: ("017Y", "018M", "18", "64.5", "070Y", "")[n % 6]),
            "csv.finding": test.label.map({0: "well", 1: "ill"}),
            "csv.name": number.map(lambda n: f"film {n}"),
            "csv.view": "PA",
        }
    )
    masks = subgroup_masks(films)
    others = [name for name in masks if name not in subgroup_masks(test)]
    assert others == ["sex F", "sex M", *(f"patient age {years}" for years in ("18 to 64", "65 and above", "below 18"))]
    assert (masks["sex M"] == (number % 3 == 1)).all()
    assert (masks["patient age below 18"] == (number % 6 < 2)).all()


def test_renderings_of_val_have_an_auroc_each_and_on_the_mean(table):
    val = table[table.split == "val"]
    moved = {"as it is": 0.0, "noisy": 2.0, "cropped": 6.0}
    rng = np.random.default_rng(4)
    rendered = pd.concat(
        val.assign(rendering=name, logit=val.logit + by * rng.normal(0, 1, len(val))) for name, by in moved.items()
    )
    report, locked = evaluate(table, rendered)
    measure_renderings(rendered, Resampling(200), locked.temperature.value).add_to(report)
    report = to_json(report)
    each = {name: sk.roc_auc_score(part.label, part.logit) for name, part in rendered.groupby("rendering")}
    found = report["val"]["renderings"]
    assert list(found) == list(moved)
    assert {name: estimate["value"] for name, estimate in found.items()} == pytest.approx(each)
    mean = report["val"]["metrics"]["auroc_rendered"]
    assert mean["value"] == pytest.approx(np.mean(list(each.values())))
    assert found["cropped"]["low"] < mean["low"] < mean["value"] < mean["high"] < found["as it is"]["high"]
    assert headline(report)["val"]["auroc_rendered"] == mean["value"]
    calibration = report["val"]["calibration_rendered"]
    probability = 1 / (1 + np.exp(-rendered.logit / locked.temperature.value))
    error = expected_calibration_error(rendered.label, probability, np.linspace(0, 1, 16))
    assert calibration == {"ece": {"value": error, "chance_high": calibration["ece"]["chance_high"]}, "films": len(val)}
    alone = measure_renderings(rendered.assign(patient=np.arange(len(rendered))), Resampling(200))
    shared = measure_renderings(rendered, Resampling(200))
    assert shared.ece.chance_high > 1.1 * alone.ece.chance_high, "films of a patient share their luck"
    plain = evaluate(table)[1]
    logits = np.linspace(-9, 9, 999)
    assert (locked.decide(logits)[1] == plain.decide(logits)[1]).all(), "min_sensitivity looks at val as it is"
    assert locked.temperature.value > plain.temperature.value == 1, "renderings that are answered badly make less sure"
    shares = [decision.is_sure(decision.calibrate(logits)).mean() for decision in (locked, plain)]
    assert shares[0] < shares[1], "and leave more to a person"


def test_headline_is_small_and_leaves_out_what_is_undefined(table, evaluated):
    found = headline(evaluated[0])
    assert {split: list(names) for split, names in found.items()} == {
        "val": ["auroc"],
        "test": ["auroc", "accuracy", "sensitivity", "specificity", "f1"],
    }
    assert found["test"]["f1"] == evaluated[0]["test"]["metrics"]["f1"]["value"]
    sick = table[(table.split == "val") | (table.label == 1)]
    report = evaluate(sick, None, LockingRules(), Resampling(100))[0]
    assert list(headline(report)["test"]) == ["accuracy", "sensitivity", "f1"]
    assert report["test"]["curves"]["roc"] is None
    json.dumps(headline(report), allow_nan=False)


def test_an_outside_set_is_judged_by_what_was_locked(table, evaluated):
    outside = table[table.split == "test"].drop(columns=["width", "height", "mode"])
    report = report_split(outside, evaluated[1], Resampling(100))
    assert report.confusion == evaluated[0]["test"]["confusion"]


def test_known_films_are_those_of_a_split_by_their_pixels():
    films = pd.DataFrame({"path": list("abcdef"), "pixel_sha256": ["1", "2", "3", "2", "", "6"]})
    splits = pd.DataFrame({"path": list("dbcae"), "split": ["test", "train", "val", "test", "train"]})
    assert known_films(films, splits) == {"2": "train", "3": "val", "1": "test"}


def test_refusals(table):
    with pytest.raises(UserError, match="lack the column logit"):
        evaluate(table.drop(columns="logit"))
    with pytest.raises(UserError, match="no test film"):
        evaluate(table[table.split == "val"])
    with pytest.raises(UserError, match="validation holds only NORMAL"):
        evaluate(table[(table.split == "test") | (table.label == 0)])
    with pytest.raises(ValueError, match="not finite"):
        evaluate(table.assign(logit=table.logit.where(table.index > 0)))
