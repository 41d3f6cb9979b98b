"""The DenseNets and the ResNet of torchxrayvision, trained on chest films: one gray channel, values -1024 to 1024."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor, nn

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.model.hubs.loading import load_all_but_head
from pulmo.model.hubs.names import HubName
from pulmo.model.hubs.pickled_layers import read_layers
from pulmo.model.hubs.pretrained import Pretrained, Scale, WeightsNotAtHand
from pulmo.model.weight_files import read_state

_DIGITS = 16  # of the hash that stands for a revision
_LICENCE = "Apache-2.0, that of torchxrayvision's models"
# Layers of the networks that torchxrayvision publishes pickled whole.
_LAYERS = (
    *(f"torchxrayvision.models.{name}" for name in ("DenseNet", "_DenseBlock", "_DenseLayer", "_Transition")),
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.pooling.AvgPool2d",
    "torch.nn.modules.pooling.MaxPool2d",
)


def find(weights: HubName) -> Pretrained:
    """The weights by torchxrayvision's name, such as densenet121-res224-all."""
    from torchxrayvision.models import model_urls

    _check_name(weights.name)
    url = model_urls[weights.name]["weights_url"]
    file = _fetch(weights, url)
    digest = sha256_file(file)
    if not digest.startswith(weights.revision):
        raise UserError(
            f"train.weights: {file} is not the file that {weights} names: its SHA-256 begins {digest[:_DIGITS]}",
            "delete it, so that it is downloaded again, or correct what stands behind @",
        )
    origin = {"source": url, "revision": "", "file": file.name, "sha256": digest, "licence": _LICENCE}
    return Pretrained(weights._replace(revision=digest[:_DIGITS]), file, origin)


def build(name: str, outputs: int, size: int, config: Mapping[str, Any], file: Path | None = None) -> nn.Module:
    """The network with so many outputs for films of any size, and where a file is named with its weights."""
    from torchvision.models import resnet50
    from torchxrayvision.models import DenseNet

    _check_name(name)
    densenet = name.startswith("densenet")
    network: nn.Module
    if densenet:
        network = DenseNet(num_classes=outputs)
        network.get_submodule("features").add_module("conv0", _FirstChannel())
    else:
        network = resnet50(num_classes=outputs)
        network.conv1 = _FirstChannel()
    if file:
        state = read_layers(file, _LAYERS) if densenet else read_state(file)
        load_all_but_head(network, state, "classifier" if densenet else "fc", file)
    return network


def scale(name: str, config: Mapping[str, Any]) -> Scale:
    """The scale that brings 0..1 to -1024..1024."""
    return Scale((0.5,) * 3, (1 / 2048,) * 3)


class _FirstChannel(nn.Conv2d):
    """The first layer of these networks, which sees one of the three equal channels."""

    def __init__(self) -> None:
        super().__init__(1, 64, kernel_size=7, stride=2, padding=3, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs[:, :1])


def _check_name(name: str) -> None:
    from torchxrayvision.models import model_urls

    known = [key for key in model_urls if key.startswith(("densenet121", "resnet50"))]
    if name not in known:
        raise UserError(f"torchxrayvision has no network {name!r}", f"choose {', '.join(known)}")


def _fetch(weights: HubName, url: str) -> Path:
    """The file of weights in the library's cache, downloaded by the library where it is not there."""
    from requests import RequestException
    from torchxrayvision.models import get_weights
    from torchxrayvision.utils import get_cache_dir

    folder = Path(get_cache_dir())
    file = folder / Path(url).name
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{file}.lock"):  # of several processes one downloads
                get_weights(weights.name)
        except RequestException as error:
            raise WeightsNotAtHand(
                f"train.weights: {weights} is not at hand: {url} could not be downloaded ({type(error).__name__})",
                f"run again once the network is back, or put that file into {folder}",
            ) from error
    return file
