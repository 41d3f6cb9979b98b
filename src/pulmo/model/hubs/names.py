"""Names of weights on hubs, as `train.weights` takes them: HUB:NAME or HUB:NAME@REVISION."""

from typing import NamedTuple

# The library that each hub needs. The extra of pulmo that installs it has the hub's name.
LIBRARIES = {"timm": "timm", "xrv": "torchxrayvision", "hf": "timm"}


class HubName(NamedTuple):
    """Weights of one network on a hub."""

    hub: str
    name: str
    revision: str = ""  # a branch, tag or commit; empty for the newest

    @property
    def arch(self) -> str:
        """The name without revision, which names the network alone."""
        return f"{self.hub}:{self.name}"

    def __str__(self) -> str:
        return f"{self.arch}@{self.revision}" if self.revision else self.arch


def read_name(text: str) -> HubName | None:
    """The hub, name and revision that a text names; None where it names no hub."""
    hub, _, rest = text.partition(":")
    if hub not in LIBRARIES or not rest:
        return None
    name, _, revision = rest.partition("@")
    return HubName(hub, name, revision)
