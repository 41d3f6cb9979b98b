"""Weights made elsewhere, fetched by their own clients from the loopback, in the formats of the real ones."""

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hubs
import numpy as np
import pytest
import timm
import torch
import torchvision
import torchxrayvision
from safetensors.torch import save
from small_project import copy_project, run_stage, write_params
from torchxrayvision.models import DenseNet
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTForImageClassification, ViTModel

from pulmo.base.errors import UserError
from pulmo.base.files import read_json
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.model.classifier import load_classifier
from pulmo.model.export import export_network
from pulmo.model.hubs.names import LIBRARIES, HubName
from pulmo.model.hubs.networks import build_network
from pulmo.model.networks import build_model
from pulmo.model.scoring import to_input
from pulmo.model.start import pin_weights, start_network
from pulmo.package.inference import Network
from pulmo.package.info import IMAGENET_MEAN
from pulmo.training.freezing import split_frozen

VIT = "test_vit.r160_in1k"  # half a million weights
README = b"---\nlibrary_name: timm\nlicense: cc-by-nc-4.0\n---\n# A network\n"


def random_vit() -> torch.nn.Module:
    torch.manual_seed(3)
    return timm.create_model(VIT, pretrained=False)


@pytest.fixture(scope="module")
def hub() -> Iterator[hubs.Loopback]:
    with hubs.served(hubs.HuggingFaceAnswers) as server:
        server.repository = f"timm/{VIT}"
        server.files = {"model.safetensors": save(random_vit().state_dict()), "README.md": README}
        yield server


@pytest.fixture
def client(hub: hubs.Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hubs.Loopback:
    """The hub, with which the client library of this process speaks."""
    hubs.lead_hugging_face_to(hub.port, tmp_path / "cache", monkeypatch)
    return hub


def test_weights_of_timm_are_taken_over_at_their_revision(client: hubs.Loopback) -> None:
    settings = pin_weights("resnet18", f"timm:{VIT}")
    assert settings == {"arch": f"timm:{VIT}", "weights": f"timm:{VIT}@{hubs.COMMIT}"}
    asked = len(client.log)
    start = start_network(**settings, head=1, size=160)
    assert len(client.log) == asked, "what is pinned is read from the cache"
    own, taken = random_vit().state_dict(), start.network.state_dict()
    assert [name for name, value in taken.items() if not torch.equal(value, own[name][: len(value)])] == ["head.weight"]
    assert start.origin["source"] == f"huggingface.co/timm/{VIT}"
    assert start.origin["licence"] == "cc-by-nc-4.0"
    assert start.preparation.mean == (0.5, 0.5, 0.5) != IMAGENET_MEAN


def test_a_network_of_timm_starts_without_weights_or_from_a_file(tmp_path: Path) -> None:
    torch.save(random_vit().state_dict(), tmp_path / "own.pth")
    start = start_network(f"timm:{VIT}", str(tmp_path / "own.pth"), 2, 160)
    assert torch.equal(start.network.state_dict()["norm.weight"], random_vit().state_dict()["norm.weight"])
    assert start.preparation.mean == (0.5, 0.5, 0.5)
    assert build_model(f"timm:{VIT}", "none", 2, 64)(torch.zeros(2, 3, 64, 64)).shape == (2, 2)


@pytest.mark.parametrize(
    ("weights", "message", "hint"),
    [
        ("timm:vit_base_patch16_224.dini", "timm has no network 'vit_base_patch16_224.dini'", "vit_base_patch16_224"),
        ("timm:vit_tiny_patch16_224", r"is not at hand: Hugging Face shows no timm/vit_tiny.* \(HTTP 401\)", "hf auth"),
        (f"timm:{VIT}@v9", r"shows no .* \(HTTP 404\)", "correct its name or revision"),
        ("hf:microsoft//rad dino", "hf:microsoft//rad dino names no repository of Hugging Face", "OWNER/NAME"),
        ("timm:test_vit_relpos", "timm has no weights for test_vit_relpos", "timm.list_models"),
    ],
)
def test_names_that_lead_nowhere_are_one_line(client: hubs.Loopback, weights: str, message: str, hint: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pin_weights("resnet18", weights)
    assert hint in caught.value.hint


def test_weights_out_of_reach_say_how_to_bring_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hubs.lead_hugging_face_to(9, tmp_path, monkeypatch)
    with pytest.raises(UserError, match="could not be reached") as caught:
        pin_weights("resnet18", f"timm:{VIT}")
    assert f"hf download timm/{VIT}" in caught.value.hint


@pytest.mark.parametrize(("hub", "library"), LIBRARIES.items())
def test_a_library_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, hub: str, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=f"{hub}:a/b needs the library {library}") as caught:
        pin_weights("resnet18", f"{hub}:a/b")
    assert caught.value.hint == f"pip install 'pulmo[{hub}]'"


def test_a_size_that_patches_do_not_fill_is_one_line() -> None:
    with pytest.raises(UserError, match=r"preprocess\.size 50, which its patches of 16 pixels do not fill") as caught:
        build_model(f"timm:{VIT}", "none", 2, 50)
    assert caught.value.hint.endswith("such as 48")


@pytest.mark.slow
def test_a_linear_probe_sees_films_at_the_scale_of_its_weights_and_says_whose_they_are(
    client: hubs.Loopback, project: Path, tmp_path: Path
) -> None:
    folder = copy_project(project, tmp_path / "probe")
    off = dict.fromkeys(("flip", "rotation", "zoom", "translation", "edge", "brightness", "contrast"), 0.0)
    write_params(folder, {"train": {"weights": f"timm:{VIT}", "freeze": "backbone", "epochs": 3, "augment": off}})
    run_stage("train", folder)
    model = read_json(folder / "models/trained/model.json")
    assert model["arch"] == model["training"]["arch"] == model["training"]["weights"] == f"timm:{VIT}"
    assert model["origin"]["revision"] == hubs.COMMIT
    package = load_classifier(folder / "models/trained")
    name = "blocks.2.mlp.fc1.weight"
    assert torch.equal(package.network.state_dict()[name], random_vit().state_dict()[name])
    val = read_rows(folder / "data/splits.csv", folder / "data/processed/index.csv", "val")
    films = np.array(open_images(folder / "data/processed/images.npy")[val["row"].to_numpy()])
    with torch.no_grad():
        outputs = package.network((torch.from_numpy(films)[:, None].float().repeat(1, 3, 1, 1) / 255 - 0.5) / 0.5)
    loss = torch.nn.functional.cross_entropy(outputs, torch.tensor(val["target"].to_numpy())).item()
    assert loss == pytest.approx(model["training"]["best"]["val_loss"], abs=1e-3), "from stored outputs"
    answers = Network(export_network(package, films).content)
    assert answers.score(films) == pytest.approx((outputs[:, 1] - outputs[:, 0]).numpy(), abs=1e-4)
    assert not answers.has_heat


class FileAnswers(hubs.Answers):
    """A place that serves its files, as GitHub does those of a release."""

    def respond(self) -> None:
        if content := self.server.files.get(self.path.rpartition("/")[2]):
            self.send_blob(content, {"Content-Type": "application/octet-stream"})
        else:
            self.answer(404)


XRV, PICKLED = "densenet121-res224-rsna", "densenet121-published.pt"


@pytest.fixture(scope="module")
def xrv_network() -> DenseNet:
    torch.manual_seed(4)
    return DenseNet(num_classes=18).eval()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubs.Loopback]:
    """What torchxrayvision downloads from, and a home with an empty cache."""
    with hubs.served(FileAnswers) as server:
        url = f"http://127.0.0.1:{server.port}/v1/{PICKLED}"
        monkeypatch.setitem(torchxrayvision.models.model_urls[XRV], "weights_url", url)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def pickled(network: object, **format: bool) -> bytes:
    content = io.BytesIO()
    torch.save(network, content, **format)
    return content.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_of_torchxrayvision_is_read_without_its_classes(
    release: hubs.Loopback, xrv_network: DenseNet, zipped: bool
) -> None:
    release.files = {PICKLED: pickled(xrv_network, _use_new_zipfile_serialization=zipped)}
    settings = pin_weights("resnet18", f"xrv:{XRV}")
    digest = hashlib.sha256(release.files[PICKLED]).hexdigest()
    assert settings == {"arch": f"xrv:{XRV}", "weights": f"xrv:{XRV}@{digest[:16]}"}
    start = start_network(**settings, head=2, size=64)
    assert start.origin["sha256"] == digest
    film = np.random.default_rng(0).integers(0, 256, (1, 64, 64), dtype=np.uint8)
    frozen, _ = split_frozen(start.network.eval(), "backbone")
    theirs = torchxrayvision.utils.normalize(film.astype(np.float32), 255)
    with torch.no_grad():
        features = frozen(to_input(torch.from_numpy(film), start.preparation.mean, start.preparation.std))
        expected = xrv_network.features2(torch.from_numpy(theirs)[:, None])
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="is not the file that"):
        pin_weights("resnet18", f"xrv:{XRV}@0123456789abcdef")


class Trap:
    """An object that would run a program when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch sprung",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_of_torchxrayvision_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    network = torch.nn.Linear(2, 2)
    network.note = Trap()
    Path("trap.pt").write_bytes(pickled(network, _use_new_zipfile_serialization=zipped))
    with pytest.raises(UserError, match=r"holds more than layers and tensors \(posix\.system\), which is refused"):
        build_network(HubName("xrv", XRV), 2, 64, {}, Path("trap.pt"))
    assert not Path("sprung").exists()


def test_weights_of_torchxrayvision_out_of_reach_name_their_place(release: hubs.Loopback) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded \(HTTPError\)") as caught:
        pin_weights("resnet18", f"xrv:{XRV}")
    assert ".torchxrayvision/models_data" in caught.value.hint


def test_the_resnet_of_torchxrayvision_is_a_state_dict(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet50(num_classes=18)
    theirs.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pt")
    network = build_network(HubName("xrv", "resnet50-res512-all"), 1, 64, {}, tmp_path / "resnet.pt").eval()
    theirs.fc = network.fc
    inputs = torch.randn(2, 1, 64, 64)
    assert torch.equal(network(inputs.expand(-1, 3, -1, -1)), theirs.eval()(inputs))


SMALL_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
TRANSFORMERS = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SMALL_VIT, layerscale_value=0.7)),
    "vit": lambda: ViTModel(ViTConfig(**SMALL_VIT, intermediate_size=64)),
    "classifier": lambda: ViTForImageClassification(ViTConfig(**SMALL_VIT, intermediate_size=64, layer_norm_eps=1e-3)),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_transformer_of_hugging_face_sees_as_its_own_library_does(
    client: hubs.Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    torch.manual_seed(5)
    theirs = TRANSFORMERS[kind]().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path / "published")
    monkeypatch.setattr(client, "files", {file.name: file.read_bytes() for file in (tmp_path / "published").iterdir()})
    films = {"do_normalize": True, "image_mean": [0.53, 0.53, 0.53], "image_std": [0.25, 0.25, 0.25]}
    client.files["preprocessor_config.json"] = json.dumps(films).encode()
    client.files["README.md"] = b"---\nlicense: other\nlicense_name: msrla\n---\n"
    monkeypatch.setattr(client, "repository", "microsoft/rad-dino")
    settings = pin_weights("resnet18", "hf:microsoft/rad-dino")
    for size in (28, 56):
        start = start_network(**settings, head=2, size=size)
        inputs = torch.randn(2, 3, size, size)
        encoder = theirs if kind != "classifier" else theirs.vit
        other = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
        with torch.no_grad():
            expected = encoder(inputs, **other).last_hidden_state[:, 0]
            features = split_frozen(start.network.eval(), "backbone")[0](inputs)
        assert torch.allclose(features, expected, atol=1e-4)
    assert start.preparation.mean == (0.53, 0.53, 0.53)
    assert (start.arch, start.origin["licence"]) == ("hf:microsoft/rad-dino", "msrla")
    again = build_model(start.arch, "none", 2, 56, json.loads(json.dumps(start.config)))
    again.load_state_dict(start.network.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (b'{"model_type": "swin"}', r"holds no network that is read here \(swin\)"),
        (b'{"model_type": "vit"}', r"config\.json or .* is not as expected \('hidden_size'\)"),
        (b"{", r"config\.json or .* is not as expected \(Expecting"),
    ],
)
def test_other_networks_of_hugging_face_are_refused(
    client: hubs.Loopback, monkeypatch: pytest.MonkeyPatch, settings: bytes, message: str
) -> None:
    monkeypatch.setattr(client, "files", {"config.json": settings, "preprocessor_config.json": b"{}"})
    monkeypatch.setattr(client, "repository", "microsoft/swin")
    with pytest.raises(UserError, match=message):
        pin_weights("resnet18", "hf:microsoft/swin")
    with pytest.raises(UserError, match="comes with its weights alone"):
        start_network("hf:microsoft/swin", "none", 2, 32)
