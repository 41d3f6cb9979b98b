import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from pulmo.base.errors import UserError
from pulmo.evaluation.probes.gradcam import enlarge, find_feature_map, grad_cam
from pulmo.model.networks import build_model
from pulmo.model.scoring import logit_pneumonia, predict_logits, to_input

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)


class Brightness(nn.Module):
    """Its only feature map is the film itself, in 4 x 4 places; bright places speak for PNEUMONIA."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.features = nn.AvgPool2d(16)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, outputs, bias=False)
        nn.init.ones_(self.head.weight)
        if outputs == 2:
            nn.init.constant_(self.head.weight[0], -1)

    def forward(self, x):
        return self.head(self.pool(self.features(x)).flatten(1))


@pytest.mark.parametrize("outputs", [1, 2])
def test_heat_lies_where_the_evidence_is(outputs):
    images = np.zeros((2, 64, 64), np.uint8)
    images[0, 16:32, 32:48] = images[1, 48:, :16] = 255
    model = Brightness(outputs)
    for_pneumonia = grad_cam(model, images, np.array([1, 1]))
    expected = np.zeros((2, 4, 4))
    expected[0, 1, 2] = expected[1, 3, 0] = 1
    assert for_pneumonia == pytest.approx(expected, abs=1e-5)
    for_normal = grad_cam(model, images, np.array([-1, -1]))
    assert for_normal == pytest.approx(1 - expected, abs=1e-5)


def test_it_equals_the_class_activation_map_of_a_resnet():
    torch.manual_seed(0)
    model = build_model("resnet18", head=2, size=64).eval()
    seen = []
    hook = model.layer4.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    with torch.no_grad():
        model(to_input(torch.from_numpy(IMAGES)))
    hook.remove()
    weights = model.fc.weight[1] - model.fc.weight[0]
    expected = (seen[0] * weights[:, None, None]).sum(dim=1).relu().detach().numpy()
    expected = expected / expected.max(axis=(1, 2), keepdims=True)
    assert grad_cam(model, IMAGES, np.ones(3), batch_size=2) == pytest.approx(expected, abs=1e-4)
    assert find_feature_map(model, IMAGES[:1]).startswith("layer4")


@pytest.mark.parametrize(
    "arch", ["squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "densenet121", "convnext_tiny", "swin_t"]
)
def test_it_works_for_every_family_of_networks(arch):
    torch.manual_seed(1)
    model = build_model(arch, head=1, size=64).requires_grad_(False)
    heat = grad_cam(model, IMAGES, np.array([1, -1, 1]))
    assert heat.shape[0] == 3
    assert heat.shape[1] > 1
    assert ((heat >= 0) & (heat <= 1)).all()
    assert set(np.round(heat.max(axis=(1, 2)), 5)) <= {0, 1}


def test_a_model_that_has_predicted_can_be_explained():
    model, images = build_model("squeezenet1_1", head=1, size=32), IMAGES[:, :32, :32]
    predict_logits(model, images, device="cpu")  # moves its weights
    assert grad_cam(model, images, np.ones(3)).shape[0] == 3


def test_the_model_is_left_as_it_was():
    model = build_model("resnet18", head=1, size=64)
    before = logit_pneumonia(model.eval()(to_input(torch.from_numpy(IMAGES)))).detach()
    grad_cam(model, IMAGES, np.ones(3))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert torch.is_grad_enabled()
    assert (logit_pneumonia(model(to_input(torch.from_numpy(IMAGES)))) == before).all()


def test_a_transformer_is_refused_in_one_line():
    model = VisionTransformer(64, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=2)
    with pytest.raises(UserError, match="ends in tokens") as caught:
        grad_cam(model, IMAGES, np.ones(3))
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_map_spreads_over_the_film():
    spread = enlarge(np.array([[0, 1], [0, 0]]), 64)
    assert spread.shape == (64, 64)
    assert np.unravel_index(spread.argmax(), spread.shape)[0] < 32 <= np.unravel_index(spread.argmax(), spread.shape)[1]
