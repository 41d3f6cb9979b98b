import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from pulmo.base.errors import UserError
from pulmo.model.device import choose_device, choose_precision
from pulmo.model.networks import build_model
from pulmo.model.scoring import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TTA_VIEWS,
    Preparation,
    logit_pneumonia,
    move_films,
    predict_logits,
    to_input,
)
from pulmo.model.weights import find_head

ARCHS = {
    "resnet18": 64,
    "resnet50": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "convnext_tiny": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "mobilenet_v3_large": 64,
    "squeezenet1_0": 64,
    "vit_b_16": 32,
}
FAMILIES = (
    *("alexnet", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "resnext50_32x4d"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32", "wide_resnet50_2"),
)
TINY = ("squeezenet1_1", 32)
HEAD = "classifier.1"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty torchvision cache on a machine without network."""

    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def draw_images(films: int = 5, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (films, size, size), dtype=np.uint8)


@pytest.mark.parametrize(("arch", "size"), ARCHS.items())
def test_the_tested_architectures_give_one_or_two_outputs(arch, size):
    model = build_model(arch, "none", 2, size).eval()
    with torch.inference_mode():
        assert model(to_input(torch.from_numpy(draw_images(2, size)))).shape == (2, 2)
    with torch.device("meta"):
        assert build_model(arch, "none", 1, size)(torch.empty(2, 3, size, size)).shape == (2, 1)


@pytest.mark.parametrize("arch", FAMILIES)
def test_every_other_family_can_be_built(arch):
    with torch.device("meta"):
        model = build_model(arch, "none", 1, 224).train()
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1)


def test_squeezenet_can_say_normal():
    torch.manual_seed(0)
    model = build_model("squeezenet1_0", "none", 1, 64)
    with torch.no_grad():
        model.get_submodule("classifier.1").bias.fill_(-3)
    assert predict_logits(model, draw_images(size=64), device="cpu").max() < 0


@pytest.mark.parametrize(
    ("arch", "weights", "size", "message"),
    [
        ("resnet19", "none", 64, r"train\.arch: .*no classifier 'resnet19'\n\nhint: choose .*resnet1"),
        (
            "resnet18",
            "IMAGENET1K_V7",
            64,
            r"train\.weights: resnet18 has no weights 'IMAGENET1K_V7'\n\nhint: .*IMAGENET1K_V1",
        ),
        ("vit_b_16", "none", 100, r"train\.arch: vit_b_16 cannot take preprocess\.size 100"),
        ("maxvit_t", "none", 100, r"train\.arch: maxvit_t cannot take preprocess\.size 100"),
        ("resnet18", "missing.pth", 64, r"missing\.pth not found"),
    ],
)
def test_impossible_settings_are_one_line(arch, weights, size, message):
    with pytest.raises(UserError, match=message) as caught:
        build_model(arch, weights, 2, size)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_pretrained_weights_come_from_the_cache_and_the_head_is_new(cache):
    torch.manual_seed(1)
    pretrained = models.squeezenet1_1()
    torch.save(pretrained.state_dict(), cache / "squeezenet1_1-b8a52dc0.pth")
    for weights in ("imagenet", "IMAGENET1K_V1"):
        state = build_model("squeezenet1_1", weights, 2, 32).state_dict()
        assert state[f"{HEAD}.weight"].shape[0] == 2
        for name, value in pretrained.state_dict().items():
            if not name.startswith(HEAD):
                assert torch.equal(state[name], value)


def test_weights_that_cannot_be_had_name_the_file_and_what_is_at_hand(cache):
    with pytest.raises(UserError, match=r"put resnet50-11ad3fa6\.pth into .*checkpoints .*train\.weights: none"):
        build_model("resnet50", "imagenet", 2, 32)
    (cache / "resnet50-0676ba61.pth").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"resnet50-11ad3fa6\.pth into .* set train\.weights: IMAGENET1K_V1 \(at hand\)"
    ):
        build_model("resnet50", "imagenet", 2, 32)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut off"])
def test_damaged_weights_in_the_cache_are_named(cache, content):
    (cache / "squeezenet1_1-b8a52dc0.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"squeezenet1_1-b8a52dc0\.pth is damaged"):
        build_model("squeezenet1_1", "imagenet", 2, 32)


@pytest.mark.slow
def test_a_vision_transformer_takes_its_position_embeddings_to_another_size(monkeypatch):
    torch.manual_seed(1)
    pretrained = models.vit_b_16().state_dict()
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *_, **__: dict(pretrained))
    state = build_model("vit_b_16", "IMAGENET1K_V1", 2, 64).state_dict()
    name = "encoder.pos_embedding"
    assert state[name].shape == (1, 17, 768)
    assert torch.equal(state[name][:, 0], pretrained[name][:, 0])
    assert torch.equal(state["conv_proj.weight"], pretrained["conv_proj.weight"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("head", [1, 2])
def test_a_file_of_weights_is_taken_over(tmp_path, suffix, head):
    torch.manual_seed(1)
    source = build_model(TINY[0], "none", 2, TINY[1])
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), file)
    state = build_model(TINY[0], str(file), head, TINY[1]).state_dict()
    for name, value in source.state_dict().items():
        if head == 2 or not name.startswith(HEAD):
            assert torch.equal(state[name], value)


@pytest.mark.parametrize("arch", ["googlenet", "mobilenet_v2"])
def test_what_other_writers_add_or_leave_out_of_a_file_is_no_matter(tmp_path, arch):
    source = models.get_model(arch, **({"init_weights": True} if arch == "googlenet" else {}))  # with its aux outputs
    state = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "own.pth")
    loaded = build_model(arch, str(tmp_path / "own.pth")).state_dict()
    first = next(iter(loaded))
    assert torch.equal(loaded[first], state[first])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("features.0.weight"), r"it lacks features\.0\.weight\n"),
        (lambda state: state.update(extra=torch.ones(1)), r"it has the unknown extra\n"),
        (
            lambda state: state.update({"features.0.bias": torch.ones(3)}),
            r"another shape of features\.0\.bias \(3,\) for \(64,\)\n",
        ),
    ],
)
def test_a_file_of_other_weights_is_refused(tmp_path, change, message):
    state = build_model(TINY[0], "none", 2, TINY[1]).state_dict()
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(UserError, match=message):
        build_model(TINY[0], str(tmp_path / "other.pth"), 2, TINY[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"damaged", "cannot be read as weights|more than tensors"),
        (b"", "cannot be read as weights"),
        ({"features": [1, 2]}, "holds 'features', no state dict"),
        (Path("x"), "holds more than tensors"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, content, message, suffix):
    file = tmp_path / f"weights{suffix}"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    message = message if suffix == ".pth" else "cannot be read as weights"
    with pytest.raises(UserError, match=rf"weights\{suffix}.*({message})") as caught:
        build_model(TINY[0], str(file), 2, TINY[1])
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_films_enter_as_imagenet_did():
    gray = torch.tensor([[[0, 255], [128, 3]]], dtype=torch.uint8)
    result = to_input(gray)
    assert result.shape == (1, 3, 2, 2)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    for channel in range(3):
        expected = (gray[0].double() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert torch.allclose(result[0, channel].double(), expected, atol=1e-6)
    assert torch.equal(to_input(gray.float()), result)
    assert to_input(gray, (0.0,) * 3, (1.0,) * 3).max() == 1


def test_log_odds_of_both_heads():
    assert logit_pneumonia(torch.tensor([[-2.0], [3.0]])).tolist() == [-2, 3]
    assert logit_pneumonia(torch.tensor([[1.0, 3.5], [2.0, -1.0]])).tolist() == [2.5, -3]
    assert logit_pneumonia(torch.ones(1, 2, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_prediction_does_not_depend_on_the_films_beside_it(precision):
    torch.manual_seed(0)
    model, images = build_model("resnet18", "none", 2, 32).train(), draw_images(7)
    together = predict_logits(model, images, 64, "cpu", precision)
    alone = np.concatenate([predict_logits(model, images[[row]], 1, "cpu", precision) for row in range(7)])
    assert np.allclose(together, alone, atol=1e-5)
    assert together.dtype == np.float32
    with torch.inference_mode():
        expected = logit_pneumonia(model.eval()(to_input(torch.from_numpy(images))))
    assert np.allclose(together, expected, atol=1e-5 if precision == "fp32" else 0.05)
    assert np.array_equal(
        predict_logits(model, images, 3, "cpu", precision), predict_logits(model, images, 3, "cpu", precision)
    )


def test_predicting_reads_memory_maps_and_nothing(tmp_path):
    model = build_model(*TINY[:1], "none", 2, TINY[1])
    np.save(tmp_path / "images.npy", draw_images())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert np.array_equal(predict_logits(model, mapped, 2, "cpu"), predict_logits(model, draw_images(), 2, "cpu"))
    assert predict_logits(model, draw_images(0), device="cpu").shape == (0,)


def test_views_of_a_film_are_scored_together_as_they_are_alone():
    torch.manual_seed(0)
    model, images = build_model("resnet18", "none", 2, 32).eval(), draw_images(5)

    def score(films, views=1):
        return predict_logits(model, films, 2, "cpu", "fp32", Preparation(tta_views=views))

    assert TTA_VIEWS[0] == (False, 0, 1), "the first view is the film as it is"
    alone = np.stack([score(move_films(torch.from_numpy(images), *view).numpy()) for view in TTA_VIEWS])
    assert np.ptp(alone, axis=0).min() > 1e-3, "every film has views that are scored otherwise"
    for views in range(1, len(TTA_VIEWS) + 1):
        assert np.allclose(score(images, views), alone[:views].mean(axis=0), atol=1e-5)


def test_films_move_as_told():
    film = torch.zeros(1, 33, 33, dtype=torch.uint8)
    film[0, 4:8, 20:30] = 200  # high on the right
    assert move_films(film, False, 0, 1) is film
    assert torch.equal(move_films(film, True, 0, 1), film.flip(-1))
    quarter = move_films(film, False, 90, 1)
    assert torch.allclose(quarter, torch.rot90(film, 1, (1, 2)).float(), atol=1e-2)
    assert quarter.dtype == torch.float32
    twice = move_films(film, False, 0, 2)
    assert twice.sum() == 0, "what lies outside the middle half is lost"
    half = move_films(film, False, 0, 0.5)
    rows, columns = half[0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max()) == (10, 11), "about the middle row 16, at half the distance"
    assert (columns.min(), columns.max()) == (18, 22)
    bright = torch.full((2, 16, 16), 90, dtype=torch.uint8)
    assert torch.allclose(move_films(bright, True, 30, 0.7), bright.float(), atol=1e-3), "the edge goes on outside"


@pytest.mark.parametrize(
    ("avx512", "amx", "maker", "expected"),
    [
        (False, False, "AuthenticAMD", "fp32"),
        (True, False, "AuthenticAMD", "bf16"),
        (True, False, "GenuineIntel", "fp32"),
        (True, True, "GenuineIntel", "bf16"),
    ],
)
def test_auto_takes_bf16_only_where_the_processor_computes_it_faster(monkeypatch, avx512, amx, maker, expected):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("pulmo.model.device._read_cpu", lambda: f"vendor_id\t: {maker}\n")
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == expected
    assert choose_precision("fp32", cpu) == "fp32"
    assert choose_precision("bf16", cpu) == "bf16"


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto").type == choose_device("gpu").type == "cuda"
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match=r"train\.device: gpu.*\n\nhint: set train\.device: auto"):
        choose_device("gpu")


@pytest.mark.real
def test_published_weights_load(shared, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(shared / "weights" / "torch_home" / "hub"))
    assert find_head(build_model("squeezenet1_0", "imagenet", 1, 64)) == "classifier.1"
