import io

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from pulmo.evaluation.probes.gradcam import grad_cam
from pulmo.metrics.calibration import Temperature
from pulmo.metrics.decisions import Abstention, OperatingPoint
from pulmo.metrics.locked import Locked
from pulmo.model.classifier import Classifier
from pulmo.model.export import OPSET, TOLERANCE, compare_logits, export_checked, export_network
from pulmo.model.networks import build_model
from pulmo.model.weights import find_head
from pulmo.package.inference import Network
from pulmo.package.info import PackageInfo

SMALL = {"resnet18": 64, "squeezenet1_1": 64, "mobilenet_v2": 64, "densenet121": 64, "shufflenet_v2_x0_5": 64}
LARGE = {
    **{"resnet50": 64, "efficientnet_b0": 64, "convnext_tiny": 64, "mobilenet_v3_small": 64, "vit_b_16": 32},
    **{"alexnet": 96, "googlenet": 64, "inception_v3": 96, "mnasnet0_5": 64, "resnext50_32x4d": 64, "swin_t": 64},
}
WITH_HEAT = {*SMALL, "resnet50", "efficientnet_b0", "googlenet", "mnasnet0_5", "resnext50_32x4d", "swin_t"}
LOCKED = Locked(Temperature(2.0), OperatingPoint("fixed", 0.5, 0.5, 0.5), Abstention(0.02, 0.4, 0.6, reached=True))


def make_classifier(arch: str, size: int, head: int = 2, **settings) -> Classifier:
    """A network that tells films apart, unlike a new one of many layers, whose log-odds are all but equal."""
    torch.manual_seed(0)
    network = build_model(arch, "none", head, size).eval()
    with torch.no_grad():
        network.get_submodule(find_head(network)).weight.mul_(20)
    return Classifier(network, PackageInfo(arch=arch, head=head, size=size, fit="squash", **settings))


def draw_films(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size), dtype=np.uint8)


def check(arch: str, size: int) -> None:
    classifier, films = make_classifier(arch, size), draw_films(3, size)
    network = Network(export_network(classifier, films[:1]).content)
    expected = classifier.score(films, device="cpu", precision="fp32")
    difference = np.abs(network.score(films) - expected) / np.maximum(1, np.abs(expected))
    assert difference.max() <= TOLERANCE
    heat = network.explain(films)  # a place next to zero may fall on either side of a ReLU in the other runtime
    if arch in WITH_HEAT:
        for sign in (1, -1):
            assert np.allclose(scaled(sign * heat), grad_cam(classifier.network, films, np.full(3, sign)), atol=0.03)
    assert (heat is not None) == (arch in WITH_HEAT) or arch.startswith("mobilenet_v3")


def scaled(heat: np.ndarray) -> np.ndarray:
    positive = np.maximum(heat, 0)
    return positive / np.maximum(positive.max(axis=(1, 2), keepdims=True), 1e-30)


@pytest.mark.parametrize(("arch", "size"), SMALL.items())
def test_small_networks_answer_alike_and_show_the_same_places(arch, size):
    check(arch, size)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "size"), LARGE.items())
def test_the_other_families_answer_alike(arch, size):
    check(arch, size)


def test_one_output_other_scales_and_views_are_exported_too():
    classifier = make_classifier("resnet18", 48, head=1, mean=(0.3, 0.4, 0.5), tta_views=5)
    films = draw_films(11, 48)
    network = Network(export_network(classifier, films[:1]).content, tta_views=5)
    expected = classifier.score(films, device="cpu", precision="fp32")
    assert np.allclose(network.score(films), expected, atol=TOLERANCE)
    assert not np.allclose(Network(export_network(classifier, films[:1]).content).score(films), expected, atol=1e-2)
    assert network.score(films[:0]).shape == (0,)


def test_stages_are_the_blocks_of_a_resnet():
    classifier, films = make_classifier("resnet18", 64), draw_films(2, 64)
    stages = Network(export_network(classifier, films[:1]).content).read_stages(films)
    blocks = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        block = classifier.network.get_submodule(name)
        block.register_forward_hook(lambda layer, inputs, output: blocks.append(output.mean(dim=(2, 3)).numpy()))
    classifier.score(films, device="cpu", precision="fp32")
    for stage, block in zip(stages, blocks, strict=True):
        assert np.allclose(stage, block, atol=1e-4)


def test_a_checked_export_says_how_near_it_comes_and_what_made_it():
    classifier, films = make_classifier("squeezenet1_1", 32), draw_films(6, 32)
    val = pd.DataFrame({"row": range(6), "logit": classifier.score(films, device="cpu", precision="fp32")})
    exported = export_checked(classifier, val, films, LOCKED)
    assert exported.facts["films_compared"] == 6
    assert exported.facts["largest_difference"] < TOLERANCE
    told = {item.key: item.value for item in onnx.load(io.BytesIO(exported.content)).metadata_props}
    assert told["opset"] == str(OPSET)
    assert told["torch"] == torch.__version__
    assert exported.content == export_checked(classifier, val, films, LOCKED).content


def test_a_difference_is_an_error_that_says_how_large_it_is():
    logits = np.array([-3.0, 0.5, 40.0])
    assert compare_logits(logits, logits + np.array([0, 5e-5, 2e-3]), LOCKED)["largest_difference"] == pytest.approx(
        2e-3
    )
    with pytest.raises(
        RuntimeError, match=r"of 3 validation films 0 are called otherwise, .* differ by up to 0\.0002 "
    ):
        compare_logits(logits, logits + np.array([0, 2e-4, 0]), LOCKED)
    close = np.array([1e-5, 3.0])
    with pytest.raises(RuntimeError, match="of 2 validation films 1 are called otherwise"):
        compare_logits(close, close - 5e-5, LOCKED)
    with pytest.raises(RuntimeError, match="nan"):
        compare_logits(logits, np.full(3, np.nan), LOCKED)
