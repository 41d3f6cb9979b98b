import json
from hashlib import sha256

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from small_package import make_package

from pulmo import Predictor
from pulmo.base.errors import UserError
from pulmo.model.scoring import move_films as move_in_torch
from pulmo.package.inference import Network
from pulmo.package.info import CARD, TTA_VIEWS
from pulmo.package.storage import ONNX
from pulmo.package.views import move_films

FILMS = np.random.default_rng(0).integers(0, 256, (3, 37, 37), dtype=np.uint8)


@pytest.mark.parametrize("view", [*TTA_VIEWS, (False, 90.0, 1.0), (True, 30.0, 0.5), (False, 0.0, 1.7)])
def test_views_are_the_ones_that_were_evaluated(view):
    expected = move_in_torch(torch.from_numpy(FILMS), *view).float().numpy()
    moved = move_films(FILMS, *view)
    assert moved.dtype == np.float32
    assert np.abs(moved - expected).max() < 0.01, "of 255 gray levels"
    assert view == TTA_VIEWS[0] or not np.array_equal(moved, FILMS)


def answer_always(shape: list[int], value: float = 1.0) -> onnx.ModelProto:
    """A network that never looks at a film."""
    constant = numpy_helper.from_array(np.full(shape, value, np.float32))
    given = helper.make_tensor_value_info("films", onnx.TensorProto.FLOAT, [None, None, None])
    output = helper.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("Constant", [], ["logit"], value=constant)], "g", [given], [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_covered_place_shows_what_it_speaks_for():
    share = np.zeros((28, 28), np.float32)
    share[4:8, 20:24] = 1 / 16  # place (1, 5) of 7 x 7 speaks for PNEUMONIA, and (4, 0) for NORMAL
    share[16:20, 0:4] = -2 / 16
    spots = {"share": numpy_helper.from_array(share), "axes": numpy_helper.from_array(np.array([1, 2]))}
    nodes = [helper.make_node("Constant", [], [name], value=value) for name, value in spots.items()]
    nodes.append(helper.make_node("Mul", ["films", "share"], ["shared"]))
    nodes.append(helper.make_node("ReduceSum", ["shared", "axes"], ["logit"], keepdims=0))
    given = helper.make_tensor_value_info("films", onnx.TensorProto.FLOAT, ["n", 28, 28])
    logit = helper.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "g", [given], [logit])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    film = np.zeros((28, 28), np.uint8)
    film[share != 0] = 250
    expected = np.zeros((7, 7))
    expected[1, 5], expected[4, 0] = 250 - film.mean(), 2 * (film.mean() - 250)
    assert Network(model.SerializeToString()).occlude(film) == pytest.approx(expected, abs=1e-3)


def with_other_opset(model: onnx.ModelProto) -> bytes:
    model.opset_import[0].version = 99
    return model.SerializeToString()


def with_unknown_operator(model: onnx.ModelProto) -> bytes:
    model.graph.node[0].domain = "elsewhere"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    return model.SerializeToString()


def without_outputs(model: onnx.ModelProto) -> bytes:
    del model.graph.output[:]
    return model.SerializeToString()


def with_files_elsewhere(model: onnx.ModelProto) -> bytes:
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/passwd")
    return model.SerializeToString()


OTHERS = {
    "nothing": lambda model: b"",
    "no network": lambda model: b"root:x:0:0" * 100,
    "cut short": lambda model: model.SerializeToString()[:-10_000],
    "other opset": with_other_opset,
    "unknown operator": with_unknown_operator,
    "no outputs": without_outputs,
    "weights in another file": with_files_elsewhere,
    "three answers": lambda model: answer_always([3]).SerializeToString(),
    "a table": lambda model: answer_always([1, 2]).SerializeToString(),
    "one number": lambda model: answer_always([]).SerializeToString(),
    "infinity": lambda model: answer_always([1], np.inf).SerializeToString(),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("model") / "package")


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_a_bad_package_whose_network_was_exchanged_with_its_hash_gets_one_message(package, tmp_path, change):
    content = change(onnx.load(package / ONNX))
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / ONNX).write_bytes(content)
    card = json.loads((package / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"onnx_sha256": sha256(content).hexdigest()}))
    with pytest.raises(UserError) as caught:
        Predictor.load(folder).predict([FILMS[0].repeat(8, 0).repeat(8, 1)])
    assert len(caught.value.message) < 260
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert "root" not in caught.value.message


def test_a_bad_package_of_files_without_end_gets_one_message(package, tmp_path):
    for name, text in ((CARD, "[" * 100_000), (ONNX, None)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / CARD).write_text((package / CARD).read_text())
        with (folder / name).open("w") as file:
            file.write(text) if text else file.truncate(2**42)
        with pytest.raises(UserError, match=f"{name} is (not valid JSON|damaged)"):
            Predictor.load(folder)
