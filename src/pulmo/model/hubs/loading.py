"""Weights put into a network that has a last layer of its own."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from pulmo.base.errors import UserError


def load_all_but_head(network: nn.Module, state: Mapping[str, Tensor], head: str, file: Path) -> None:
    """Load the weights into every layer but the one named `head`; UserError where they are not those of the network."""
    own = {key: value.shape for key, value in network.state_dict().items() if not key.startswith(f"{head}.")}
    theirs = {key: value.shape for key, value in state.items() if not key.startswith(f"{head}.")}
    if differing := sorted(key for key in own.keys() | theirs.keys() if own.get(key) != theirs.get(key)):
        raise UserError(f"{file}: {differing[0]} is not as its network needs it", "name other weights")
    network.load_state_dict({key: state[key] for key in own}, strict=False)
