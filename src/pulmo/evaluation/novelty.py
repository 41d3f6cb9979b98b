"""The films that a model learnt from, described by its network's features: fitted on train, limited on validation."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pulmo.base.process import release_memory
from pulmo.package.familiarity import Familiarity
from pulmo.package.inference import Network
from pulmo.package.storage import OnnxFile

PASSING = 0.975  # share of the validation films within the limit; docs/refusals.md has what others would let through
_PART = 256  # films in memory at a time
_ENOUGH = 20_000  # train films that their means and precisions are learnt from, drawn by lot where there are more


def fit_familiarity(network: Network, images: np.ndarray, train: ArrayLike, val: ArrayLike) -> Familiarity | None:
    """From the rows of two splits in images uint8 (N, S, S); None where the network has no feature maps.

    Means and precisions of the train films by Ledoit and Wolf's shrinkage, which holds where films are fewer than
    channels.
    """
    from sklearn.covariance import LedoitWolf

    rows = np.asarray(train)
    if len(rows) > _ENOUGH:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_ENOUGH])
    stages = read_features(network, images, rows)
    if not stages:
        return None
    fits = [LedoitWolf().fit(stage.astype(np.float64)) for stage in stages]
    means = [fit.location_.astype(np.float32) for fit in fits]
    precisions = [fit.precision_.astype(np.float32) for fit in fits]
    distances = measure_films(Familiarity(means, precisions, np.inf), network, images, val)
    return Familiarity(means, precisions, float(np.quantile(distances, PASSING, method="higher")))


def read_features(network: Network, images: np.ndarray, rows: ArrayLike) -> list[np.ndarray]:
    """The network's features (N, channels) at each depth of the images in `rows`."""
    return [np.concatenate(stage) for stage in zip(*_read_parts(network, images, rows), strict=True)]


def measure_films(familiarity: Familiarity, network: Network, images: np.ndarray, rows: ArrayLike) -> np.ndarray:
    """Distances (N,) of the images in `rows`, whose features are held a part at a time."""
    return np.concatenate([familiarity.measure(part) for part in _read_parts(network, images, rows)])


def _read_parts(network: Network, images: np.ndarray, rows: ArrayLike) -> Iterator[list[np.ndarray]]:
    rows = np.asarray(rows)
    for start in range(0, len(rows), _PART):
        yield network.read_stages(images[rows[start : start + _PART]])


def mark_unlike(
    films: pd.DataFrame, train: pd.DataFrame, images: np.ndarray, network: OnnxFile
) -> tuple[pd.DataFrame, Familiarity | None]:
    """`films`, val and test, with the column unlike: whether each lies beyond the limit, and what tells so.

    The tables have the column row (of the images). Without feature maps `films` are returned as they are.
    """
    release_memory()
    session = Network(network.content)
    val = films[films.split == "val"]
    familiarity = fit_familiarity(session, images, train.row, val.row)
    if familiarity is None:
        return films, None
    distances = measure_films(familiarity, session, images, films.row)
    return films.assign(unlike=familiarity.is_beyond(distances)), familiarity
