import numpy as np
import pytest
import torch

from pulmo.model.scoring import move_films as move_in_torch
from pulmo.package.info import TTA_VIEWS
from pulmo.package.views import move_films

FILMS = np.random.default_rng(0).integers(0, 256, (3, 37, 37), dtype=np.uint8)


@pytest.mark.parametrize("view", [*TTA_VIEWS, (False, 90.0, 1.0), (True, 30.0, 0.5), (False, 0.0, 1.7)])
def test_views_are_the_ones_that_were_evaluated(view):
    expected = move_in_torch(torch.from_numpy(FILMS), *view).float().numpy()
    moved = move_films(FILMS, *view)
    assert moved.dtype == np.float32
    assert np.abs(moved - expected).max() < 0.01, "of 255 gray levels"
    assert view == TTA_VIEWS[0] or not np.array_equal(moved, FILMS)
