"""Steps of training on a GPU, without one: PyTorch's fake tensors know device and shape but no values, so that whatever
would mix devices, or wait for the GPU to learn a value, raises. Backward and update are PyTorch's and need a real one.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from toy_settings import EVERY_CHANGE
from tqdm import tqdm

from pulmo.base.params import AugmentParams, TrainParams
from pulmo.model.augmentation import _places, _rings, augment, make_generator
from pulmo.model.networks import build_model
from pulmo.training.features import Feed, FilmFeed, StoredFeed
from pulmo.training.freezing import split_frozen
from pulmo.training.loop import train_epoch, validate
from pulmo.training.network import Compilable
from pulmo.training.objective import Objective
from pulmo.training.rows import Rows
from pulmo.training.state import State

GPU = torch.device("cuda", 0)
FILMS = np.zeros((12, 64, 64), dtype=np.uint8)
FEATURES = np.zeros((24, 4, 4, 256), dtype=np.float16)  # of layer3, two variants
TARGETS = torch.arange(12) % 2


@pytest.fixture
def gpu(monkeypatch) -> Iterator[SimpleNamespace]:
    """A GPU with room for everything; only its random generators are left out."""
    generator = SimpleNamespace(device=GPU)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr(
        "pulmo.training.loop.make_generator",
        lambda device, *key: generator if device.type == "cuda" else make_generator(device, *key),
    )
    for name in ("rand", "randn", "randint"):
        draw = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *size, draw=draw, generator=None, **rest: draw(*size, **rest))
    uniform = torch.Tensor.uniform_
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, *ends, generator: uniform(tensor, *ends))
    for cache in (_places, _rings):  # what they hold must be neither real here nor fake afterwards
        cache.cache_clear()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield generator
    torch.__future__.set_overwrite_module_params_on_conversion(False)
    for cache in (_places, _rings):
        cache.cache_clear()


class FabricWithoutGpu:
    """Fabric as the loop uses it, but for the backward pass, which is PyTorch's and needs a real GPU."""

    device, global_rank, world_size = GPU, 0, 1

    def broadcast(self, value: torch.Tensor) -> torch.Tensor:
        return value

    def all_reduce(self, value: torch.Tensor, reduce_op: str) -> torch.Tensor:
        return value

    def backward(self, loss: torch.Tensor) -> None:
        assert loss.device == GPU

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


class CountingFeed:
    """A feed that counts its batches and sees that they lie on the GPU."""

    def __init__(self, feed: Feed) -> None:
        self.feed, self.batches = feed, 0

    def __call__(self, positions: torch.Tensor, generator: object, size: int = 0) -> torch.Tensor:
        inputs = self.feed(positions, generator, size)
        assert inputs.device == GPU
        self.batches += 1
        return inputs


@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        (TrainParams(augment=EVERY_CHANGE, class_balance="weights", ema=0.9), False),
        (TrainParams(augment=EVERY_CHANGE, early_epochs=1, early_size=32), False),
        (TrainParams(augment=EVERY_CHANGE, head=1, loss="focal", optimizer="sgd", freeze="layer3"), False),
        (TrainParams(augment=AugmentParams(flip=0.5), optimizer="adam", freeze="layer3"), True),
        (TrainParams(augment=EVERY_CHANGE, loss="bce", head=1, freeze="layer3"), True),
    ],
    ids=["whole", "early", "frozen", "stored", "drawn"],
)
def test_an_epoch_stays_on_the_gpu_and_waits_for_it_only_when_its_steps_are_done(gpu, settings, stored):
    settings = settings.model_copy(update={"batch_size": 4})
    frozen, net = split_frozen(build_model(settings.arch, settings.weights, settings.head, 64), settings.freeze)
    objective = Objective(Compilable(net), None, TARGETS, settings)  # as real as its targets, which it counts
    state = State(net, settings, steps=3)  # here, for PyTorch crashes where a copy is made of fake tensors
    with FakeTensorMode(allow_non_fake_inputs=True):
        if stored:
            feed = CountingFeed(StoredFeed(Rows(FEATURES, np.arange(24), GPU), 2, settings.augment))
        else:
            feed = CountingFeed(FilmFeed(Rows(FILMS, np.arange(12), GPU), settings.augment, frozen and frozen.to(GPU)))
        objective.feed = feed
        objective.to(GPU)
        if state.average:
            state.average.to(GPU)
        state.optimizer = State(net, settings.model_copy(update={"ema": 0.0}), steps=3).optimizer
        assert state.optimizer.defaults["fused"]
        with tqdm(disable=True) as bar, pytest.raises(DataDependentOutputException):
            train_epoch(FabricWithoutGpu(), objective, state.optimizer, state, TARGETS, bar)
        assert feed.batches == 3
        assert torch.backends.cudnn.benchmark
        with pytest.raises(DataDependentOutputException):
            validate(FabricWithoutGpu(), state.average or objective.network, feed, TARGETS.to(GPU), state)
        assert feed.batches == 4
        assert not torch.backends.cudnn.benchmark


def test_all_augmentation_happens_on_the_gpu(gpu):
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert augment(torch.zeros((4, 64, 64), dtype=torch.uint8, device=GPU), EVERY_CHANGE, gpu).device == GPU


def test_films_that_do_not_fit_on_the_gpu_are_left_where_they_are(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (FILMS.nbytes, 10**9))
    assert Rows(FILMS, np.arange(12), GPU).resident is None
