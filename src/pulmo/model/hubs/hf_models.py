"""Vision transformers on Hugging Face in the format of the library transformers, such as RAD-DINO.

They are read into timm's network, the same but for the names of its parts, which stay the same over the years.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulmo.base.errors import UserError
from pulmo.model.hubs.loading import load_all_but_head
from pulmo.model.hubs.names import HubName
from pulmo.model.hubs.pretrained import Pretrained, Scale
from pulmo.model.hubs.repositories import WEIGHT_FILES, commit_of, describe_origin, fetch_file
from pulmo.model.weight_files import read_state

KINDS = ("vit", "dinov2")
# Names of transformers and of timm, of the whole network and of each layer.
_PARTS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_LAYER_PARTS = {
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_ATTENTION = ("query", "key", "value")


def find(weights: HubName) -> Pretrained:
    """The weights of a repository, OWNER/NAME, and the settings of their network."""
    repository = weights.name
    settings = fetch_file(weights, repository, ("config.json",))
    pinned = weights._replace(revision=commit_of(settings))
    films = fetch_file(pinned, repository, ("preprocessor_config.json",))
    try:
        config = _read_settings(_read(settings), repository)
        config |= {"mean": _read(films)["image_mean"], "std": _read(films)["image_std"]}
    except (KeyError, ValueError) as error:
        raise UserError(
            f"train.weights: {settings.name} or {films.name} of {repository} is not as expected ({error})",
            "name another repository or revision",
        ) from error
    file = fetch_file(pinned, repository, WEIGHT_FILES)
    return Pretrained(pinned, file, describe_origin(pinned, repository, file), config)


def build(name: str, outputs: int, size: int, config: Mapping[str, Any], file: Path | None = None) -> nn.Module:
    """The network with so many outputs for films of `size` pixels, and where a file is named with its weights."""
    from timm.models import VisionTransformer

    _check_described(name, config)
    network: nn.Module = VisionTransformer(
        img_size=size,
        patch_size=config["patch_size"],
        embed_dim=config["width"],
        depth=config["depth"],
        num_heads=config["heads"],
        mlp_ratio=config["mlp_ratio"],
        qkv_bias=config["qkv_bias"],
        init_values=1.0 if config["layer_scale"] else None,
        norm_layer=partial(nn.LayerNorm, eps=config["norm_eps"]),
        num_classes=outputs,
    )
    if file:
        state = _rename(read_state(file))
        state["pos_embed"] = _resize(state["pos_embed"], size // config["patch_size"])
        load_all_but_head(network, state, "head", file)
    return network


def scale(name: str, config: Mapping[str, Any]) -> Scale:
    """Mean and standard deviation per channel that the network's weights expect."""
    _check_described(name, config)
    return Scale(tuple(config["mean"]), tuple(config["std"]))


def _check_described(name: str, config: Mapping[str, Any]) -> None:
    if not config:
        raise UserError(f"train.arch: hf:{name} comes with its weights alone", f"set train.weights: hf:{name}")


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _read_settings(settings: Mapping[str, Any], repository: str) -> dict[str, Any]:
    kind = settings.get("model_type")
    other = settings.get("hidden_act", "gelu") != "gelu" or settings.get("num_channels", 3) != 3
    if kind not in KINDS or settings.get("use_swiglu_ffn") or other:
        raise UserError(
            f"train.weights: {repository} on Hugging Face holds no network that is read here ({kind or 'of no kind'})",
            f"name a repository of a {' or '.join(KINDS)} as transformers writes them; timm's are named timm:NAME",
        )
    width = settings["hidden_size"]
    return {
        "patch_size": settings["patch_size"],
        "width": width,
        "depth": settings["num_hidden_layers"],
        "heads": settings["num_attention_heads"],
        "mlp_ratio": settings.get("mlp_ratio") or settings["intermediate_size"] / width,
        "qkv_bias": settings.get("qkv_bias", True),
        "layer_scale": kind == "dinov2",
        "norm_eps": settings["layer_norm_eps"],
    }


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's names, less those of parts that it does not have: mask, pooler, classifier."""
    state = {re.sub(r"^(vit|dinov2)\.", "", key): value for key, value in state.items()}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", key):
            part = re.fullmatch(r"attention\.attention\.query\.(\w+)", match[2])
            if part:
                each = [state[key.replace("query", name)] for name in _ATTENTION]
                renamed[f"blocks.{match[1]}.attn.qkv.{part[1]}"] = torch.cat(each)
            elif not match[2].startswith("attention.attention."):
                renamed[f"blocks.{match[1]}.{_translate(match[2], _LAYER_PARTS)}"] = value
        elif not re.match(r"embeddings\.mask_token|pooler\.|classifier\.", key):
            renamed[_translate(key, _PARTS)] = value
    return renamed


def _translate(key: str, parts: Mapping[str, str]) -> str:
    for theirs, ours in parts.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return ours + key.removeprefix(theirs)
    return key


def _resize(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + n², width) for side² patches, interpolated as transformers does it."""
    first, grid = positions[:, :1], positions[:, 1:]
    old = round(grid.shape[1] ** 0.5)
    if old == side:
        return positions
    square = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, resized.permute(0, 2, 3, 1).reshape(1, side * side, -1)], dim=1)
