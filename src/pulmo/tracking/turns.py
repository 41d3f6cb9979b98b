"""One promotion at a time, from however many checkouts that share a store.

MLflow moves an alias without asking where it was, so of two at once the later would win unseen. But it numbers the
versions of a model in one order for all. Each promotion therefore makes its version first, marked as under way, and
waits until no version before it is. Who then finds another champion than the one it compared with withdraws.
Nothing keeps MLflow's own page or client from moving the alias, nor a process that sleeps longer than `LEASE` between
two lines from moving it late.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pulmo.base.errors import UserError

UNDER_WAY = "pulmo.under_way"  # tag of a version that is being promoted
LEASE = 60.0  # seconds after which a version that is still under way counts as left by a kill
_WAIT, _PAUSE = 20.0, 0.1  # seconds; a turn takes a few requests


@contextmanager
def own_turn(client: Any, model: str, version: Any) -> Iterator[None]:
    """Wait for the versions of `model` that came before this one; on an error take it back, else end its mark."""
    began = time.monotonic()
    try:
        while ahead := _list_ahead(client, model, version):
            if time.monotonic() - began > _WAIT:
                raise UserError(
                    f"version {ahead[0].version} has been under way for too long", "promote again in a minute"
                )
            time.sleep(_PAUSE)
        yield
    except UserError:
        client.delete_model_version(model, version.version)
        raise
    client.delete_model_version_tag(model, version.version, UNDER_WAY)


def _list_ahead(client: Any, model: str, version: Any) -> list[Any]:
    """Versions under way whose numbers are lower, but for those that a kill left so."""
    return [
        other
        for other in client.search_model_versions(f"name = '{model}'")
        if UNDER_WAY in other.tags
        and int(other.version) < int(version.version)
        and version.creation_timestamp - other.creation_timestamp < LEASE * 1000
    ]
