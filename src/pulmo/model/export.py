"""The network of a package as ONNX, which answers without PyTorch, checked against PyTorch before it is kept."""

import copy
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pulmo.metrics.locked import Locked
from pulmo.model.classifier import Classifier
from pulmo.model.feature_map import find_stages, last_feature_map
from pulmo.model.scoring import Preparation, logit_pneumonia, predict_logits, scale_and_shift, to_input
from pulmo.package.inference import FILMS, HEAT, LOGIT, STAGE, Network
from pulmo.package.storage import OnnxFile

OPSET = 18
TOLERANCE = 1e-4  # of a log-odds, or as a share of one beyond 1: fp32 has no more digits
FILMS_CHECKED = 256
TRACED = 2  # films that the exporter sees; with one alone it would take the batch size for a constant
TRIED = 8  # films that show whether the gradient of the last feature map depends on the film


def export_checked(classifier: Classifier, val: pd.DataFrame, images: np.ndarray, locked: Locked) -> OnnxFile:
    """The network as ONNX, with the log-odds and decisions that PyTorch has on the validation films.

    `val` has their columns row (in `images`, gray uint8 (N, S, S)) and logit. Of many films the 256 nearest to the
    threshold are compared, for theirs is the decision that changes first. RuntimeError, which says by how much, where
    the two runtimes differ.
    """
    distance = locked.confidence(locked.calibrate(val.logit.to_numpy()))
    nearest = np.argsort(distance, kind="stable")[:FILMS_CHECKED]
    films = np.asarray(images[np.sort(val.row.to_numpy()[nearest])])
    exported, info = export_network(classifier, films[:TRIED]), classifier.info
    network = copy.deepcopy(classifier.network)
    expected = predict_logits(network, films, 64, "cpu", "fp32", Preparation(info.mean, info.std, info.tta_views))
    answered = Network(exported.content, info.tta_views).score(films)
    return OnnxFile(exported.content, dict(exported.facts) | compare_logits(expected, answered, locked))


def compare_logits(expected: np.ndarray, answered: np.ndarray, locked: Locked) -> dict[str, Any]:
    """The number of films compared and the largest difference of ONNX Runtime's log-odds from PyTorch's; RuntimeError
    where it is too large, or a film is called otherwise."""
    distance = np.abs(expected - answered)
    changed = len(expected)
    if np.isfinite(answered).all():  # else there is no answer to compare
        changed = int((locked.decide(expected)[1] != locked.decide(answered)[1]).sum())
    worst = float((distance / np.maximum(1, np.abs(expected))).max())
    if not worst <= TOLERANCE or changed:
        raise RuntimeError(
            f"model.onnx does not answer as the network does: of {len(expected)} validation films {changed} are called "
            f"otherwise, and log-odds differ by up to {distance.max():.2g} ({worst:.2g} of their size, "
            f"{TOLERANCE:g} is allowed)"
        )
    return {"films_compared": len(expected), "largest_difference": float(distance.max())}


def export_network(classifier: Classifier, films: np.ndarray) -> OnnxFile:
    """The network as ONNX with the outputs that `pulmo.package.inference` names; `films` are some, uint8 (N, S, S)."""
    import onnx

    tail = _Answering(classifier, films)
    example = torch.from_numpy(np.repeat(films[:1], TRACED, axis=0)).float()
    fast, logger = torch.backends.mha.get_fastpath_enabled(), logging.getLogger("torch.onnx")
    level = logger.level
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that ONNX does not have
    logger.setLevel(logging.ERROR)
    try:
        with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            file = Path(folder) / "model.onnx"
            # The newer exporter (dynamo=True) takes ten to sixty times as long and gives the same graph.
            torch.onnx.export(
                tail,
                (example,),
                file,
                input_names=[FILMS],
                output_names=tail.outputs,
                dynamic_axes={name: {0: "n"} for name in (FILMS, *tail.outputs)},
                opset_version=OPSET,
                dynamo=False,
            )
            model = onnx.load(file)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logger.setLevel(level)
    facts = {"opset": OPSET, "torch": torch.__version__, "onnx": onnx.__version__, "outputs": tail.outputs}
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    return OnnxFile(model.SerializeToString(), facts)


class _Answering(nn.Module):
    """A copy of a network that takes gray films and gives all that an answer needs, in the order of `outputs`."""

    def __init__(self, classifier: Classifier, films: np.ndarray) -> None:
        super().__init__()
        info = classifier.info
        self.scale, self.shift = scale_and_shift(info.mean, info.std)[:, :, None, None]
        self.network = copy.deepcopy(classifier.network).cpu().float().eval()
        closed = _closed_form(self.network, films, info.mean, info.std)
        stages = find_stages(self.network, films[:1], info.mean, info.std)
        _replace_pools(self.network)
        self.parts: dict[str, Tensor] = {}
        for number, name in enumerate(stages, start=1):
            self._watch(name, f"{STAGE}{number}", lambda features: features.mean(dim=(2, 3)))
        if closed:
            layer, weights, gated = closed
            self._watch(layer, HEAT, lambda features: _heat(features, weights, gated))
        self.outputs = [LOGIT, *([HEAT] if closed else []), *(f"{STAGE}{n + 1}" for n in range(len(stages)))]

    def forward(self, gray: Tensor) -> tuple[Tensor, ...]:
        self.parts.clear()
        # as `to_input` does, but a plane after the other, which ONNX Runtime computes ten times as fast
        self.parts[LOGIT] = logit_pneumonia(self.network(gray.unsqueeze(1) * self.scale - self.shift))
        return tuple(self.parts[name] for name in self.outputs)

    def _watch(self, layer: str, name: str, summary: Any) -> None:
        def keep(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            self.parts[name] = summary(output)  # at once, for some networks go on in place

        self.network.get_submodule(layer).register_forward_hook(keep)


def _heat(features: Tensor, weights: Tensor, gated: bool) -> Tensor:
    """The map whose positive part is Grad-CAM for PNEUMONIA, and whose negative part is that for NORMAL."""
    share = (features > 0).to(features.dtype).mean(dim=(2, 3), keepdim=True) if gated else 1.0
    return (features * weights[:, None, None] * share).sum(dim=1)


def _closed_form(network: nn.Module, films: np.ndarray, mean: Any, std: Any) -> tuple[str, Tensor, bool] | None:
    """The last feature map's layer and the gradient of the log-odds by its channels, where every film has the same one.

    So it is where the map is pooled and goes into one linear layer; `gated`, where a ReLU stands before the pool, only
    the places above zero have it. Found by trying films, and noise, for the code of each network says it otherwise.
    """
    layer = last_feature_map(network, films[:1], mean, std)
    if layer is None:
        return None
    noise = np.random.default_rng(0).integers(0, 256, (4, *films.shape[1:]), dtype=np.uint8)
    features, gradient = _gradient(network, np.concatenate([films, noise]), layer, mean, std)
    for gated in (False, True):
        open_ = (features > 0).float() if gated else torch.ones_like(features)
        weights = (gradient * open_).sum(dim=(0, 2, 3)) / open_.sum(dim=(0, 2, 3)).clamp_min(1)
        rest = (gradient - weights[:, None, None] * open_).abs().max()
        if rest <= 1e-3 * gradient.abs().max():
            return layer, weights, gated
    return None


def _gradient(network: nn.Module, films: np.ndarray, layer: str, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    outputs: list[Tensor] = []

    def begin_graph(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()

    hook = network.get_submodule(layer).register_forward_hook(begin_graph)
    try:
        with torch.enable_grad():
            logit = logit_pneumonia(network(to_input(torch.from_numpy(films), mean, std)))
            (gradient,) = torch.autograd.grad(logit.sum(), outputs[-1])
    finally:
        hook.remove()
    return outputs[-1].detach(), gradient


class _ExactPool(nn.Module):
    """Adaptive average pooling as two matrix products, for sizes that ONNX cannot pool."""

    def __init__(self, output_size: int | tuple[int | None, ...] | None) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if not isinstance(output_size, tuple) else output_size

    def forward(self, features: Tensor) -> Tensor:
        sides = zip(features.shape[2:], self.output_size, strict=True)
        rows, columns = (_averages(int(side), wanted or int(side)) for side, wanted in sides)
        return rows @ features @ columns.T


def _averages(side: int, wanted: int) -> Tensor:
    matrix = torch.zeros(wanted, side)
    for place in range(wanted):
        begin, end = place * side // wanted, -(-(place + 1) * side // wanted)
        matrix[place, begin:end] = 1 / (end - begin)
    return matrix


def _replace_pools(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size not in (1, (1, 1)):
                setattr(parent, name, _ExactPool(layer.output_size))
