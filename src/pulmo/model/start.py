"""A network as training begins with it, and what is known of the weights that it begins with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from pulmo.model.hubs.names import HubName, read_name
from pulmo.model.hubs.networks import build_network, find_pretrained, find_scale
from pulmo.model.networks import build_model
from pulmo.model.scoring import AS_IMAGENET, Preparation


@dataclass(frozen=True)
class Start:
    """The network. `arch` and `config` build it again, `preparation` is that of films, `origin` tells where its weights
    come from (empty where not from a hub)."""

    network: nn.Module
    arch: str
    preparation: Preparation = AS_IMAGENET
    origin: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The keys of model.json that describe the network."""
        prepared = {"mean": self.preparation.mean, "std": self.preparation.std}
        return {"arch": self.arch, **prepared, "network": dict(self.config), "origin": dict(self.origin)}


def pin_weights(arch: str, weights: str) -> dict[str, str]:
    """The settings arch and weights with the revision that weights on a hub have now, and the architecture they bring.

    So no training goes on with others. They are downloaded, where they are not in the hub's cache.
    """
    pretrained = find_pretrained(weights)
    if pretrained is None:
        return {"arch": arch, "weights": weights}
    return {"arch": pretrained.name.arch, "weights": str(pretrained.name)}


def start_network(arch: str, weights: str, head: int, size: int) -> Start:
    """The network with `head` outputs for films of `size` pixels; weights from a hub bring its architecture."""
    if pretrained := find_pretrained(weights):
        named, config = pretrained.name._replace(revision=""), pretrained.config
        network = build_network(named, head, size, config, pretrained.file)
        return Start(network, named.arch, _prepare(named, config), pretrained.origin, config)
    named_arch = read_name(arch)
    preparation = _prepare(named_arch, {}) if named_arch else AS_IMAGENET
    return Start(build_model(arch, weights, head, size), arch, preparation)


def _prepare(arch: HubName, config: Mapping[str, Any]) -> Preparation:
    mean, std = find_scale(arch, config)
    return Preparation(mean, std)
