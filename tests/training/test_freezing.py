import pytest
import torch
from torch import nn

from pulmo.base.errors import UserError
from pulmo.model.networks import build_model
from pulmo.training.freezing import split_frozen

BACKBONES = {
    "resnet18": 2 * 512 + 2,
    "densenet121": 2 * 1024 + 2,
    "efficientnet_b0": 2 * 1280 + 2,
    "convnext_tiny": 2 * 768 + 2,
    "mobilenet_v2": 2 * 1280 + 2,
    "mobilenet_v3_small": 2 * 1024 + 2,
    "squeezenet1_1": 2 * 512 + 2,
    "vit_b_16": 2 * 768 + 2,
}
BLOCKS = (
    ("resnet18", "layer3"),
    ("resnet18", "conv1"),
    ("densenet121", "features.denseblock3"),
    ("densenet121", "features"),
    ("efficientnet_b0", "features.5"),
    ("convnext_tiny", "features.5"),
    ("mobilenet_v3_small", "features.8"),
    ("squeezenet1_1", "features.7"),
    ("vit_b_16", "encoder.layers.encoder_layer_5"),
)


def build(arch: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(arch, "none", 2, 32)


def check_parts(model: nn.Module, frozen: nn.Module, rest: nn.Module) -> None:
    """Together the parts are the network, and every weight is in exactly one of them."""
    inputs = torch.randn(2, 3, 32, 32)
    parts = [{id(parameter) for parameter in part.parameters()} for part in (frozen, rest)]
    assert parts[0] | parts[1] == {id(parameter) for parameter in model.parameters()}
    assert not parts[0] & parts[1]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(parameter.requires_grad for parameter in rest.parameters())
    assert not any(module.training for module in frozen.modules())
    model.eval()
    with torch.inference_mode():
        assert torch.equal(rest(frozen(inputs)), model(inputs))


@pytest.mark.parametrize(("arch", "trainable"), BACKBONES.items())
def test_backbone_leaves_the_last_layer(arch, trainable):
    model = build(arch)
    frozen, rest = split_frozen(model, "backbone")
    assert sum(parameter.numel() for parameter in rest.parameters()) == trainable
    check_parts(model, frozen, rest)


@pytest.mark.parametrize(("arch", "block"), BLOCKS)
def test_everything_up_to_the_named_block_is_frozen(arch, block):
    model = build(arch)
    frozen, rest = split_frozen(model, block)
    inside = {id(parameter) for parameter in model.get_submodule(block).parameters()}
    assert inside <= {id(parameter) for parameter in frozen.parameters()}
    check_parts(model, frozen, rest)


def test_layer3_leaves_layer4_and_the_head():
    model = build("resnet18")
    rest = split_frozen(model, "layer3")[1]
    expected = [*model.layer4.parameters(), *model.fc.parameters()]
    assert {id(parameter) for parameter in rest.parameters()} == {id(parameter) for parameter in expected}


@pytest.mark.parametrize("arch", ["mobilenet_v2", "squeezenet1_1"])
def test_dropout_before_the_head_stays_random(arch):
    frozen, rest = split_frozen(build(arch), "backbone")
    rest.train()
    features = 1 + frozen(torch.randn(1, 3, 32, 32))
    with torch.no_grad():
        assert not torch.equal(rest(features), rest(features))


def test_nothing_frozen_is_the_network_itself():
    model = build("squeezenet1_1")
    assert split_frozen(model, "none") == (None, model)


@pytest.mark.parametrize(
    ("arch", "block", "message"),
    [
        (
            "resnet18",
            "layer9",
            r"no block 'layer9'\n\nhint: choose none, backbone, conv1, .*layer3, layer4$",
        ),
        ("squeezenet1_1", "", r"no block ''\n\nhint: choose none, backbone, features, features\.0"),
        ("vit_b_16", "layer9", r"no block 'layer9'\n\nhint: choose none, backbone, encoder$"),
        ("maxvit_t", "layer9", r"no block 'layer9'\n\nhint: choose none, backbone, stem$"),
        ("resnet18", "layer2.0.conv1", "side branch passes layer2.0.conv1"),
        ("vit_b_16", "encoder.layers.encoder_layer_5.self_attention", "side branch passes encoder"),
        ("swin_t", "features.1.0.attn.qkv", "cannot be cut behind 'features.1.0.attn.qkv'"),
        ("resnet18", "fc", "nothing is left to train behind 'fc'"),
        ("googlenet", "inception3a.branch1", "side branch passes inception3a.branch1"),
    ],
)
def test_impossible_cuts_are_one_line(arch, block, message):
    with torch.device("meta"):
        model = build_model(arch, "none", 2, 224 if arch == "maxvit_t" else 32)
    with pytest.raises(UserError, match=rf"^train\.freeze: .*{message}"):
        split_frozen(model, block)
