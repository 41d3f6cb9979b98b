"""Steps of training on a GPU, without one: PyTorch's fake tensors know device and shape but no values, so that whatever
would mix devices, or wait for the GPU to learn a value, raises. Backward and update are PyTorch's and need a real one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pulmo.model.augmentation import Augmentation, _places, _rings, augment
from pulmo.model.networks import build_model
from pulmo.training.features import FilmFeed, StoredFeed
from pulmo.training.freezing import split_frozen
from pulmo.training.learner import Learner
from pulmo.training.rows import Rows
from pulmo.training.settings import TrainSettings

GPU = torch.device("cuda", 0)
FILMS = np.zeros((12, 64, 64), dtype=np.uint8)
FEATURES = np.zeros((24, 4, 4, 256), dtype=np.float16)  # of layer3, two variants
TARGETS = torch.arange(12) % 2
EVERYTHING = Augmentation(0.5, 10.0, 0.1, 0.1, 0.1, 0.5, 0.1, 0.1, 1.5, 0.05, 50, 0.5)


@pytest.fixture
def gpu(monkeypatch) -> Iterator[SimpleNamespace]:
    """A GPU with room for everything; only its random generators are left out."""
    generator = SimpleNamespace(device=GPU)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr("pulmo.training.learner.make_generator", lambda *key: generator)
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


@contextmanager
def learner_on_gpu(settings: TrainSettings, stored: bool) -> Iterator[Learner]:
    """A learner as `fit` and Lightning make it, in a world where only its inputs are real."""
    frozen, net = split_frozen(build_model(settings.arch, settings.weights, settings.head, 64), settings.freeze)
    learner = Learner(net, None, TARGETS, None, TARGETS, settings, lambda learner: None, progress=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        if stored:
            feed = StoredFeed(Rows(FEATURES, np.arange(24), GPU), 2, settings.augment)
        else:
            feed = FilmFeed(Rows(FILMS, np.arange(12), GPU), settings.augment, frozen and frozen.to(GPU))
        learner.feed = learner.val_feed = feed
        yield learner.to(GPU)


@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        (TrainSettings(augment=EVERYTHING, class_balance="weights", ema=0.9), False),
        (TrainSettings(augment=EVERYTHING, head=1, loss="focal", optimizer="sgd", freeze="layer3"), False),
        (TrainSettings(augment=Augmentation(flip=0.5), optimizer="adam", freeze="layer3"), True),
        (TrainSettings(augment=EVERYTHING, loss="bce", head=1, freeze="layer3"), True),
    ],
    ids=["whole", "frozen", "stored", "drawn"],
)
def test_steps_stay_on_the_gpu_and_never_wait_for_it(gpu, settings, stored):
    batches = TARGETS.argsort().split(4)
    with learner_on_gpu(settings, stored) as learner:
        assert learner.configure_optimizers().defaults["fused"]
        learner.on_train_epoch_start()
        learner.on_validation_epoch_start()
        for batch_idx, batch in enumerate(batches):
            loss = learner.compute_loss(batch, batch_idx)
            learner.on_train_batch_end(None, batch, batch_idx)
            learner.validation_step(batch, batch_idx)
        assert {loss.device, *(outputs.device for outputs in [*learner._outputs, *learner._val_outputs])} == {GPU}
        with pytest.raises(DataDependentOutputException):
            learner._check_losses()


def test_all_augmentation_happens_on_the_gpu(gpu):
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert augment(torch.zeros((4, 64, 64), dtype=torch.uint8, device=GPU), EVERYTHING, gpu).device == GPU


def test_films_that_do_not_fit_on_the_gpu_are_left_where_they_are(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (FILMS.nbytes, 10**9))
    assert Rows(FILMS, np.arange(12), GPU).resident is None
