"""Networks of timm, the weights of which lie on Hugging Face: DINO, DINOv2, DINOv3 and some thousand others."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pulmo.base.errors import UserError
from pulmo.model.hubs.names import HubName
from pulmo.model.hubs.pretrained import Pretrained, Scale
from pulmo.model.hubs.repositories import WEIGHT_FILES, commit_of, describe_origin, fetch_file


def find(weights: HubName) -> Pretrained:
    """The weights by timm's name, such as vit_base_patch16_224.dino; without the part after the dot timm's default."""
    settings = _read_settings(weights.name)
    name = f"{settings.architecture}.{settings.tag}" if settings.tag else settings.architecture
    if not settings.hf_hub_id:
        raise UserError(f"train.weights: timm has no weights for {weights.name}", _suggest(weights.name))
    files = (settings.hf_hub_filename,) if settings.hf_hub_filename else WEIGHT_FILES
    file = fetch_file(weights, settings.hf_hub_id, files)
    pinned = HubName(weights.hub, name, commit_of(file))
    origin = describe_origin(pinned, settings.hf_hub_id, file, settings.license or "")
    return Pretrained(pinned, file, origin)


def build(name: str, outputs: int, size: int, config: Mapping[str, Any], file: Path | None = None) -> nn.Module:
    """The network with so many outputs for films of `size` pixels, and where a file is named with its weights."""
    import timm

    settings = _read_settings(name)
    fixed = {"img_size": size} if settings.fixed_input_size else {}
    source = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}} if file else {}
    network: nn.Module = timm.create_model(name, num_classes=outputs, **fixed, **source)
    return network


def scale(name: str, config: Mapping[str, Any]) -> Scale:
    """Mean and standard deviation per channel that the network's weights expect."""
    settings = _read_settings(name)
    return Scale(tuple(settings.mean), tuple(settings.std))


def _read_settings(name: str) -> Any:
    """timm's settings of a network and of its weights; UserError for a name that it does not know."""
    import timm
    from timm.models import get_pretrained_cfg

    try:
        settings = get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # a tag that the network does not have
        settings = None
    if settings is None:
        raise UserError(f"timm has no network {name!r}", _suggest(name))
    return settings


def _suggest(name: str) -> str:
    import timm

    known = timm.list_models(pretrained=True)
    near = difflib.get_close_matches(name, known, 3, 0.4)
    return f"choose one of timm.list_models(pretrained=True), such as {', '.join(near or known[:3])}"
