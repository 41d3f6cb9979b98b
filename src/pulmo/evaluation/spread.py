"""The films of the pipeline scored on a Ray cluster, to the last digit as one machine of the same processors does."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from pulmo.base.cluster import join_cluster
from pulmo.films.rows.stack import FilmStack
from pulmo.model.classifier import Classifier, load_classifier, view_films

BATCHES = 4  # a task


def score_on_cluster(package: Path, views: int, films: FilmStack, batch_size: int) -> np.ndarray:
    """Log-odds of films of images.npy, float32 (N,), by the classifier in `package`, in fp32 on CPUs.

    Each task computes with as many threads as this process would, on which digits depend. The nodes map the array of
    the films into memory themselves. UserError where there is no cluster, or none of its nodes has so many cores.
    """
    assert isinstance(films.images, np.memmap)  # as films.rows.processed.open_images returns it
    threads, file, step = torch.get_num_threads(), Path(str(films.images.filename)), batch_size * BATCHES
    score = partial(_score, package.absolute(), views, file, batch_size, threads)
    with join_cluster(cores=threads) as cluster:
        parts = (films.rows[start : start + step] for start in range(0, len(films), step))
        return np.concatenate(list(cluster.map(partial(score, part) for part in parts)))


def _score(package: Path, views: int, file: Path, batch_size: int, threads: int, rows: np.ndarray) -> np.ndarray:
    torch.set_num_threads(threads)
    films = FilmStack(np.load(file, mmap_mode="r"), rows)
    return _load(package, views).score(films, batch_size, device="cpu", precision="fp32")


@cache
def _load(package: Path, views: int) -> Classifier:
    """The classifier of a task's process."""
    return view_films(load_classifier(package), views)
