import json
from dataclasses import replace

import numpy as np
import pytest
from toy_decision import cut_at

from pulmo.base.errors import UserError
from pulmo.metrics.calibration import Temperature
from pulmo.metrics.decisions import Abstention
from pulmo.metrics.locked import read_locked

LOCKED = replace(cut_at(0.6), temperature=Temperature(2.0, "by hand"), abstention=Abstention(0.02, 0.5, 0.7, True))


def test_a_decision_survives_the_way_through_json():
    assert read_locked(json.loads(json.dumps(LOCKED.to_json()))) == LOCKED


def test_the_same_films_are_called_whoever_asks():
    logits = np.array([-3.0, 0.0, 2 * np.log(1.5), 3.0])  # the third has a calibrated probability of exactly 0.6
    probability, called = LOCKED.decide(logits)
    assert probability == pytest.approx([1 / (1 + np.exp(1.5)), 0.5, 0.6, 1 / (1 + np.exp(-1.5))])
    assert called.tolist() == [False, False, True, True]
    assert (LOCKED.call(probability) == called).all()
    assert LOCKED.call([0.6, np.nextafter(0.6, 0)]).tolist() == [True, False]


def test_films_inside_the_band_are_left_to_a_person():
    assert LOCKED.is_sure([0.4, 0.5, 0.51, 0.69, 0.7, 0.9]).tolist() == [True, True, False, False, True, True]
    out_of_reach = replace(LOCKED, abstention=Abstention(0.02, 0.0, 1.0, reached=False))
    assert not out_of_reach.is_sure([0.0, 0.5, 1.0]).any()
    assert cut_at(0.6).is_sure([0.0, 0.6, 1.0]).all()


def test_what_is_no_decision_is_refused_with_its_key():
    with pytest.raises(UserError, match="no locked threshold"):
        read_locked({})
    content = LOCKED.to_json()
    del content["abstention"]["low"]
    with pytest.raises(UserError, match=r"locked\.abstention\.low"):
        read_locked(content)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("temperature", "value", float("inf")),
        ("temperature", "value", float("nan")),
        ("temperature", "value", -1.0),
        ("operating_point", "threshold", float("nan")),
        ("operating_point", "threshold", 1.5),
        ("abstention", "low", float("nan")),
        ("abstention", "high", 0.1),
    ],
)
def test_an_impossible_decision_is_refused_with_its_key(part, key, value):
    content = LOCKED.to_json()
    content[part][key] = value
    with pytest.raises(UserError, match=rf"locked\.{part}.* is impossible"):
        read_locked(content)


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), -float("inf")])
def test_log_odds_that_are_not_finite_get_no_answer(logit):
    with pytest.raises(ValueError, match="not finite"):
        LOCKED.decide([0.5, logit])
