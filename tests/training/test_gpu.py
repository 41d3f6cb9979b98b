"""Training on a GPU, where there is one; test_gpu_step.py tells what can be known without."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_training import IMAGES, QUICK, TARGETS, TRAIN, VAL, auroc, change
from toy_settings import EVERY_CHANGE

from pulmo.base.errors import UserError
from pulmo.base.params import AugmentParams, TrainParams
from pulmo.evaluation.probes.gradcam import grad_cam
from pulmo.model.networks import build_model
from pulmo.model.scoring import predict_logits
from pulmo.training import Films, fit
from pulmo.training.objective import Objective, Steps

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="there is no CUDA GPU, which no CI of this project has; test_gpu_step.py takes the same step without one",
)

ON_GPU = change(QUICK, device="gpu", precision="auto")
BATCH_NORM = change(ON_GPU, arch="resnet18", lr=0.001)
# What two trainings are compared in: no batch norm and small steps, which do not blow up what rounding does.
STEADY = change(ON_GPU, precision="fp32", optimizer="sgd", lr=0.001, epochs=4, augment=AugmentParams(flip=0.5))
CLOSE = 0.1  # relative, of a loss; rounding to bf16 moves one by as much, films in another order by .8


@pytest.fixture(autouse=True)
def nothing_left_of_other_tests() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def without_dropout(monkeypatch) -> None:
    """Two devices draw other numbers for it from the same seed, as do compiled networks."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda layer, values: values)


def run(settings: TrainParams = ON_GPU, **options):
    return fit(TRAIN, VAL, settings, **{"progress": False, **options})


def losses(fitted) -> list[float]:
    return [row[name] for row in fitted.history for name in ("train_loss", "val_loss")]


def test_it_learns_in_bf16_and_the_network_answers_on_any_device():
    fitted = run(change(ON_GPU, epochs=6))
    assert (fitted.device, fitted.precision) == ("cuda", "bf16")
    assert fitted.best["val_auroc"] > 0.95
    assert auroc(fitted.model) == pytest.approx(fitted.best["val_auroc"], abs=0.03)  # bf16 there, fp32 here
    on_cpu, on_gpu = (predict_logits(fitted.model, IMAGES, device=name, precision="fp32") for name in ("cpu", "gpu"))
    assert np.allclose(on_cpu, on_gpu, atol=0.02)


def test_a_gpu_and_a_cpu_train_alike(without_dropout):
    settings = change(STEADY, augment=AugmentParams())
    assert losses(run(settings)) == pytest.approx(losses(run(change(settings, device="cpu"))), rel=CLOSE)


@pytest.mark.parametrize(
    "settings",
    [
        change(BATCH_NORM, augment=EVERY_CHANGE, class_balance="weights", ema=0.9),
        change(BATCH_NORM, augment=EVERY_CHANGE, class_balance="sampler", head=1, loss="focal", optimizer="sgd"),
        change(BATCH_NORM, augment=EVERY_CHANGE, head=1, loss="bce", freeze="layer3", cache_variants=2),
        change(BATCH_NORM, freeze="backbone", schedule="cosine", warmup_epochs=1),
        change(BATCH_NORM, freeze="layer3", cache_variants=-1, schedule="plateau", optimizer="adamw"),
    ],
    ids=["whole", "sampler", "drawn", "head", "computed"],
)
def test_every_way_to_train_runs_without_waiting_for_the_gpu(settings, monkeypatch):
    """Only where a loop looks at losses may it wait: every fifty steps and when the steps of an epoch are done."""

    def forbid(objective, *inputs, original=Objective.forward):
        torch.cuda.set_sync_debug_mode("error")
        return original(objective, *inputs)

    def allow(steps, original=Steps.read_losses):
        torch.cuda.set_sync_debug_mode("default")
        return original(steps)

    monkeypatch.setattr(Objective, "forward", forbid)
    monkeypatch.setattr(Steps, "read_losses", allow)
    fitted = run(settings)
    assert len(fitted.history) == 3
    assert np.isfinite(losses(fitted)).all()


@pytest.mark.parametrize("freeze", ["none", "features.7"])
def test_streamed_films_train_the_same_network(freeze, without_dropout, monkeypatch):
    settings = change(STEADY, freeze=freeze)
    resident = run(settings)
    monkeypatch.setattr("pulmo.training.rows._GPU_SHARE", 0.0)
    assert losses(run(settings)) == pytest.approx(losses(resident), rel=CLOSE)


def test_stored_outputs_train_the_same_network(without_dropout):
    settings = change(STEADY, freeze="features.7")
    assert losses(run(settings)) == pytest.approx(losses(run(change(settings, cache_variants=-1))), rel=CLOSE)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_interrupted_training_goes_on(tmp_path, without_dropout, monkeypatch, compiled):
    def stop(row):
        if row["epoch"] == 3:
            raise RuntimeError("killed")

    if compiled:
        monkeypatch.setattr("pulmo.training.loop._COMPILE_PAYS", -1.0)
    straight = run(STEADY)
    with pytest.raises(RuntimeError, match="killed"):
        run(STEADY, resume=tmp_path, on_epoch=stop)
    assert losses(run(STEADY, resume=tmp_path)) == pytest.approx(losses(straight), rel=CLOSE)


def test_compiling_changes_how_fast_it_learns_not_what(without_dropout, monkeypatch):
    eager = run(STEADY)
    compiled = []
    monkeypatch.setattr("pulmo.training.loop._COMPILE_PAYS", -1.0)
    monkeypatch.setattr(torch, "compile", spy(torch.compile, compiled))
    assert losses(run(STEADY)) == pytest.approx(losses(eager), rel=CLOSE)
    assert len(compiled) == 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_algorithms_are_searched_for_the_batch_that_recurs_alone(monkeypatch):
    seen = []

    def forward(objective, positions, generator, original=Objective.forward):
        seen.append((len(positions), torch.backends.cudnn.benchmark))
        return original(objective, positions, generator)

    monkeypatch.setattr(Objective, "forward", forward)
    run(change(ON_GPU, batch_size=16, epochs=1))
    assert seen == [(16, True), (16, True), (8, False)]
    assert not torch.backends.cudnn.benchmark


def spy(function, calls):
    def call(*arguments, **options):
        calls.append(arguments)
        return function(*arguments, **options)

    return call


def test_a_model_that_has_predicted_there_is_explained_there():
    model = build_model("resnet18", head=1, size=64)
    films = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    predict_logits(model, films, device="gpu")
    assert grad_cam(model, films, np.ones(3)).shape[0] == 3


def test_a_full_gpu_says_which_batch_size_to_try():
    films = np.zeros((64, 224, 224), dtype=np.uint8)
    train, val = Films(films, np.arange(60), TARGETS), Films(films, np.arange(2), TARGETS[:2])
    settings = change(ON_GPU, arch="resnet50", batch_size=64, epochs=1)
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(UserError, match=r"too small for train\.batch_size 64\n\nhint: try 32"):
            fit(train, val, settings, progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_loss_that_is_not_finite_says_where():
    with pytest.raises(
        UserError, match=r"not finite at epoch 1, step \d, learning rate 1e\+30\n\nhint: lower train\.lr"
    ):
        run(change(ON_GPU, optimizer="sgd", lr=1e30))
