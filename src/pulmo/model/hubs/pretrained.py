"""Weights from a hub, found on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pulmo.base.errors import UserError
from pulmo.model.hubs.names import HubName

Triple = tuple[float, float, float]


class WeightsNotAtHand(UserError):
    """Weights that are neither on this machine nor to be had from their hub."""


class Scale(NamedTuple):
    """Mean and standard deviation per channel, of values 0..1, that weights expect of films."""

    mean: Triple
    std: Triple


@dataclass(frozen=True)
class Pretrained:
    """Weights in a file of this machine.

    `name` has their exact revision. `origin` says where they come from and what they are: source, revision, file,
    sha256 and licence. `config` describes the network where its name does not.
    """

    name: HubName
    file: Path
    origin: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict)
