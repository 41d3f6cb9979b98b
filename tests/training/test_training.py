import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from pulmo.base import cores
from pulmo.base.errors import UserError
from pulmo.base.params import AugmentParams, TrainParams
from pulmo.metrics.ranking import ranking
from pulmo.model.augmentation import scale_down, swap_acquisition
from pulmo.model.networks import build_model
from pulmo.model.scoring import predict_logits
from pulmo.training import Films, fit

TARGETS = np.arange(60) % 2
QUICK = TrainParams(
    arch="squeezenet1_1",
    optimizer="adam",
    lr=0.0003,
    schedule="constant",
    epochs=3,
    batch_size=8,
    augment=AugmentParams(flip=0.5, rotation=5.0, noise=0.02),
    precision="fp32",
    device="cpu",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other are slow where several tests share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw_films() -> np.ndarray:
    """Noise, with a brighter patch in every second film, uint8 (60, 32, 32)."""
    films = np.random.default_rng(0).integers(40, 140, (60, 32, 32), dtype=np.uint8)
    films[TARGETS == 1, 8:20, 8:20] += 70
    return films


IMAGES = draw_films()
TRAIN = Films(IMAGES, np.arange(40), TARGETS[:40])
VAL = Films(IMAGES, np.arange(40, 60), TARGETS[40:])


def change(settings: TrainParams, **values) -> TrainParams:
    return TrainParams.model_validate(dict(settings) | values)


def run(settings: TrainParams = QUICK, **options):
    return fit(TRAIN, VAL, settings, **{"progress": False, **options})


def same_weights(first, second) -> bool:
    states = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def auroc(model) -> float:
    logits = predict_logits(model, IMAGES[VAL.rows], device="cpu", precision="fp32")
    return float(ranking(VAL.targets == 1, logits.astype(float))(np.ones((1, 20)))["auroc"][0])


def test_training_learns_and_keeps_the_best_epoch(tmp_path):
    rows = []
    fitted = run(change(QUICK, epochs=6), history=tmp_path / "history.csv", on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows == fitted.history
    best = max(rows, key=lambda row: (row["val_auroc"], -row["val_loss"]))
    assert fitted.best_epoch == best["epoch"]
    assert fitted.best == {name: value for name, value in best.items() if name != "seconds"}
    assert best["val_auroc"] > 0.95
    assert auroc(fitted.model) == pytest.approx(best["val_auroc"])
    table = pd.read_csv(tmp_path / "history.csv")
    names = ["epoch", "lr", "seconds", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc"]
    assert table.columns.tolist() == names
    assert table.to_dict("records") == [pytest.approx(row) for row in rows]
    assert (fitted.device, fitted.precision) == ("cpu", "fp32")
    assert not fitted.model.training


def test_the_history_grows_while_training_runs(tmp_path):
    file, lengths = tmp_path / "history.csv", []
    run(history=file, on_epoch=lambda row: lengths.append(len(pd.read_csv(file))))
    assert lengths == [1, 2, 3]


SETTINGS = {
    "plain": QUICK,
    "average": change(QUICK, ema=0.8, class_balance="sampler"),
    "batch norm, plateau": change(
        QUICK, arch="shufflenet_v2_x0_5", schedule="plateau", optimizer="sgd", head=1, loss="bce"
    ),
    "stored": change(QUICK, freeze="features.7", augment=AugmentParams(flip=0.5), lr=0.003),
    "early, killed among small films": change(
        QUICK, arch="shufflenet_v2_x0_5", epochs=4, early_epochs=3, early_size=24, ema=0.9
    ),
    "early, killed among whole films": change(
        QUICK, early_epochs=1, early_size=24, freeze="features.7", cache_variants=-1
    ),
    "skipping, stored": change(
        QUICK, skip_easy=0.9, epochs=4, freeze="features.7", augment=AugmentParams(flip=0.5), ema=0.8
    ),
    "bf16, cosine": change(
        QUICK, precision="bf16", schedule="cosine", warmup_epochs=1, class_balance="weights", consistency=1.0
    ),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path, settings):
    def stop(row):
        if row["epoch"] == 2:
            raise RuntimeError("killed")

    straight = run(settings)
    with pytest.raises(RuntimeError, match="killed"):
        run(settings, resume=tmp_path, on_epoch=stop)
    rows = []
    resumed = run(settings, resume=tmp_path, on_epoch=rows.append)
    assert same_weights(straight, resumed)
    assert [row["epoch"] for row in rows] == list(range(1, settings.epochs + 1))
    for first, second in zip(straight.history, resumed.history, strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
    again = run(settings, resume=tmp_path)  # killed after the last epoch, before the package was written
    assert same_weights(straight, again)


def train_to_file(resume: Path, begun: Path, file: Path) -> None:
    """What the killed processes do."""
    torch.set_num_threads(1)
    begun.touch()
    torch.save(run(SETTINGS["average"], resume=resume).model.state_dict(), file)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # else the server that forks finds nothing to preload
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    folder, begun, file = tmp_path / "resume", tmp_path / "begun", tmp_path / "weights.pth"
    folder.mkdir()
    survived = 0
    for seconds in (0.1, 0.4, 0.2, 0.6, 0.5, 60):
        begun.unlink(missing_ok=True)
        process = processes.Process(target=train_to_file, args=(folder, begun, file))
        process.start()
        while not begun.exists():
            time.sleep(0.01)
        process.join(seconds)
        survived += not process.is_alive()
        process.kill()
        process.join()
    assert 1 <= survived < 6
    straight = run(SETTINGS["average"]).model.state_dict()
    for name, value in torch.load(file).items():
        assert torch.equal(straight[name], value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_seed_gives_one_network(precision):
    settings = change(QUICK, arch="shufflenet_v2_x0_5", precision=precision, epochs=2)
    first, second, other = run(settings), run(settings), run(change(settings, seed=43))
    assert same_weights(first, second)
    assert not same_weights(first, other)


def test_a_training_beside_another_stage_takes_turns_and_ends_with_the_same_weights(monkeypatch, capfd):
    monkeypatch.setattr(cores, "TURN", 0.02)
    settings = change(QUICK, arch="shufflenet_v2_x0_5", epochs=2)
    alone = run(settings)
    other, taken, ended = cores.Turns(cores.usable_cores(), report=lambda text: None), [], threading.Event()
    other.take()

    def compute() -> None:
        while not ended.wait(0.03):
            other.give_way()
            taken.append(time.monotonic())
        other.leave()

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        began = time.monotonic()
        beside = run(settings)
        turns = sum(moment > began for moment in taken)
    finally:
        ended.set()
        thread.join()
    assert same_weights(alone, beside)
    assert turns > 3
    assert "another stage has the cores: taking turns with it" in capfd.readouterr().out


def test_stored_outputs_train_the_same_network():
    settings = change(QUICK, freeze="features.7", augment=AugmentParams(flip=0.5), optimizer="sgd", lr=0.001)
    stored, computed = run(settings), run(change(settings, cache_variants=-1))
    for name in ("train_loss", "val_loss"):
        assert [row[name] for row in stored.history] == pytest.approx([row[name] for row in computed.history], rel=0.01)
    expected = predict_logits(computed.model, IMAGES, device="cpu", precision="fp32")
    assert np.allclose(predict_logits(stored.model, IMAGES, device="cpu", precision="fp32"), expected, atol=0.02)
    assert not same_weights(stored, run(change(settings, augment=AugmentParams())))


@pytest.mark.parametrize("cache_variants", [-1, 2])
def test_frozen_layers_and_their_batch_norm_stay_as_they_were(cache_variants):
    settings = change(QUICK, arch="shufflenet_v2_x0_5", freeze="stage3", cache_variants=cache_variants, epochs=3)
    fitted = run(settings)
    torch.manual_seed(settings.seed)
    before = build_model("shufflenet_v2_x0_5", "none", 2, 32).state_dict()
    for name, value in fitted.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]) == (not name.startswith(("stage4", "conv5", "fc"))), name


def test_the_average_of_the_weights_is_what_is_kept():
    rows = {decay: run(change(QUICK, ema=decay)).history for decay in (0.0, 0.9)}
    assert rows[0.0][0]["train_loss"] == rows[0.9][0]["train_loss"]
    assert rows[0.0][0]["val_loss"] != rows[0.9][0]["val_loss"]
    fitted = run(change(QUICK, ema=0.9, epochs=5))
    assert auroc(fitted.model) == pytest.approx(fitted.best["val_auroc"])


class Watched(np.ndarray):
    """Films that note which of them are read."""

    read: ClassVar[list[np.ndarray]] = []

    def __array_function__(self, function, types, args, kwargs):
        if function is np.take:
            self.read.append(args[1])
        return function(*(np.asarray(arg) if isinstance(arg, Watched) else arg for arg in args), **kwargs)


def test_after_the_first_epoch_easy_films_are_skipped():
    settings = change(QUICK, skip_easy=0.9, epochs=5, schedule="cosine")
    films = Films(IMAGES.view(Watched), TRAIN.rows, TRAIN.targets)
    fitted = fit(films, VAL, settings, progress=False)
    read = np.concatenate(Watched.read)
    first, later = read[: len(TRAIN.rows)], read[len(TRAIN.rows) :]
    assert sorted(first) == sorted(TRAIN.rows)
    assert len(TRAIN.rows) < len(later) < 0.8 * 4 * len(TRAIN.rows)
    assert fitted.history[-1]["lr"] < settings.lr / 30, "the learning rate comes to its end all the same"
    assert auroc(fitted.model) > 0.95


def test_early_epochs_train_on_films_scaled_down_and_validate_on_whole_ones():
    settings = change(QUICK, augment=AugmentParams(flip=0.5), optimizer="sgd", lr=0.003)
    small = Films(scale_down(torch.from_numpy(IMAGES), 24).round().byte().numpy(), TRAIN.rows, TRAIN.targets)
    whole, scaled = run(settings).history, fit(small, VAL, settings, progress=False).history
    fitted = run(change(settings, early_epochs=2, early_size=24))
    early = fitted.history
    for name in ("train_loss", "val_loss"):
        assert [row[name] for row in early[:2]] == pytest.approx([row[name] for row in scaled[:2]], rel=0.02)
        assert early[0][name] != pytest.approx(whole[0][name], rel=0.05)
    assert early[2]["train_loss"] != pytest.approx(scaled[2]["train_loss"], rel=0.05)
    assert auroc(fitted.model) == pytest.approx(fitted.best["val_auroc"])


def test_early_films_too_small_for_the_network_are_refused():
    with pytest.raises(UserError, match=r"cannot take train\.early_size 4 \(.*\n\nhint: raise train\.early_size"):
        run(change(QUICK, early_epochs=1, early_size=4))


def test_consistency_makes_answers_depend_less_on_the_acquisition():
    swapped = swap_acquisition(torch.from_numpy(IMAGES[VAL.rows]).float()).round().byte().numpy()
    differences = []
    for weight in (0.0, 3.0):
        fitted = run(change(QUICK, consistency=weight, epochs=6))
        logits, others = (
            predict_logits(fitted.model, films, 64, "cpu", "fp32") for films in (IMAGES[VAL.rows], swapped)
        )
        differences.append(np.abs(logits - others).mean() / logits.std())
        assert auroc(fitted.model) > 0.9
    assert differences[1] < 0.7 * differences[0]


def test_patience_ends_training():
    fitted = run(change(QUICK, lr=1e-12, patience=2, epochs=9, augment=AugmentParams()))
    assert len(fitted.history) == fitted.best_epoch + 2 < 9


def test_a_plateau_lowers_the_learning_rate():
    rates = [row["lr"] for row in run(change(QUICK, schedule="plateau", lr=3e-8, epochs=6)).history]
    assert rates[0] == pytest.approx(3e-8)
    assert rates[-1] == pytest.approx(3e-9)


def test_a_loss_that_is_not_finite_says_where():
    settings = change(QUICK, optimizer="sgd", lr=1e30)
    with pytest.raises(
        UserError, match=r"not finite at epoch 1, step [2345], learning rate 1e\+30\n\nhint: lower train\.lr"
    ):
        run(settings)


def test_a_full_gpu_says_which_batch_size_to_try(monkeypatch):
    def overflow(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "backward", overflow)
    with pytest.raises(UserError, match=r"too small for train\.batch_size 8\n\nhint: try 4"):
        run()


def test_ctrl_c_stays_ctrl_c():
    def interrupt(row):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(on_epoch=interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(("target", "label"), [(0, "NORMAL"), (1, "PNEUMONIA")])
def test_a_split_of_one_class_is_refused(target, label):
    keep = VAL.targets != target
    with pytest.raises(UserError, match=rf"split val has no {label} film"):
        fit(TRAIN, Films(IMAGES, VAL.rows[keep], VAL.targets[keep]), QUICK)


def test_films_too_small_for_the_network_are_refused():
    with pytest.raises(
        UserError, match=r"train\.arch: alexnet cannot take preprocess\.size 32 \(.*small.*\n\nhint: raise preprocess"
    ):
        run(change(QUICK, arch="alexnet"))


def test_only_the_epochs_are_told(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    run(change(QUICK, epochs=1))
    assert capfd.readouterr() == ("", "")
    run(change(QUICK, epochs=1), progress=True)
    told = capfd.readouterr()
    assert told.out.startswith("epoch 1: loss ")
    assert told.out.count("\n") == 1
    assert told.err == ""
    assert not list(tmp_path.iterdir())
    assert not recwarn.list
