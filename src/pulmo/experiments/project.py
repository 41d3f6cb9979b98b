"""The one value that everything here works on: a checkout, its DVC, and its MLflow store."""

import socket
from functools import cached_property
from pathlib import Path

from pulmo.experiments.dvc import Dvc
from pulmo.tracking.store import Store, has_store, open_store


class Project:
    """The checkout at `root`. The command line makes it once and hands it on."""

    def __init__(self, root: Path, dvc: Dvc | None = None) -> None:
        self.root = root
        self.dvc = dvc or Dvc(root)

    @property
    def address(self) -> str:
        """Host and path, by which checkouts that share a study tell each other apart."""
        return f"{socket.gethostname()}:{self.root}"

    @cached_property
    def store(self) -> Store:
        """The MLflow store, opened (and made where there is none) when it is first asked for."""
        return open_store(self.root)

    @property
    def has_store(self) -> bool:
        """True once there is a store."""
        return has_store(self.root)
