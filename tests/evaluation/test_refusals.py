import json

import numpy as np
import pandas as pd
from small_package import make_package

from pulmo.evaluation.novelty import PASSING, fit_familiarity, read_features
from pulmo.evaluation.probes.refusals import measure_refusals
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.estimates import to_json
from pulmo.package.inference import Network
from pulmo.package.storage import ONNX


def test_shares_are_those_of_the_table_with_their_films():
    split, unlike = ["val"] * 10 + ["test"] * 20, [True] + [False] * 9 + [True] * 4 + [False] * 16
    films = pd.DataFrame({"split": split, "label": [0, 1] * 15, "patient": range(30), "unlike": unlike})
    found = measure_refusals(films, Resampling(200, 0))
    assert (found.val.value, found.test.value) == (0.1, 0.2)
    assert found.test.low < 0.2 < found.test.high
    assert (found.test.films, found.test.patients) == (20, 20)
    assert found.doubts() == ["20% of the test films are unlike those that it learnt from."]
    content: dict = {}
    found.add_to(content)
    assert json.loads(json.dumps(to_json(content)))["refusals"]["passing"] == PASSING


def test_the_limit_lets_validation_pass_and_keeps_noise_out(tmp_path):
    dice = np.random.default_rng(1)
    y, x = np.mgrid[:64, :64] / 64
    middles = dice.uniform(0.3, 0.7, (300, 2))
    images = np.stack([220 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.1) for a, b in middles]).astype(np.uint8)
    noise = dice.integers(0, 256, (6, 64, 64), dtype=np.uint8)
    network = Network((make_package(tmp_path / "package") / ONNX).read_bytes())
    known = fit_familiarity(network, images, range(100), range(100, 300))
    assert known is not None
    unlike = known.is_beyond(known.measure(read_features(network, np.concatenate([images, noise]), range(306))))
    assert unlike[100:300].sum() == 4, "the limit is the distance of the fifth farthest of 200 films"
    assert unlike[300:].all()
