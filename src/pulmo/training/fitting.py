"""From films in memory to a trained network."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pulmo.base.files import write_csv
from pulmo.model.augmentation import Augmentation
from pulmo.model.device import choose_device, choose_precision
from pulmo.model.networks import build_model
from pulmo.training.checkpoints import Checkpoint
from pulmo.training.features import Feed, FilmFeed, StoredFeed, count_variants, store_features
from pulmo.training.freezing import split_frozen
from pulmo.training.learner import Learner, Row
from pulmo.training.rows import Rows
from pulmo.training.settings import Films, TrainSettings
from pulmo.training.speedup import speed_up

_ALGORITHMS = 4  # of each convolution that cuDNN tries on a GPU, in the order of its own guess; PyTorch lets it try 10


@dataclass(frozen=True)
class Fitted:
    """The network with the weights of its best epoch, in eval mode on the CPU, and how it came about."""

    model: nn.Module
    history: list[Row]
    best_epoch: int
    device: str
    precision: str

    @property
    def best(self) -> Row:
        """The history's row of the best epoch, without what differs between equal runs."""
        return {key: value for key, value in self.history[self.best_epoch - 1].items() if key != "seconds"}


def fit(
    images: np.ndarray,
    train: Films,
    val: Films,
    settings: TrainSettings,
    resume: Path | None = None,
    history: Path | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    progress: bool = True,
) -> Fitted:
    """Train on the rows `train` of `images` (uint8 N, S, S) and keep the epoch of the best AUROC on the rows `val`.

    `resume` is a folder that carries a killed training over to the next call with the same arguments; `history` is a
    CSV file rewritten after every epoch; `on_epoch` gets each of its rows, those of a resumed training too.
    """
    _check_films(train, val)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    torch.manual_seed(settings.seed)
    model = build_model(settings.arch, settings.weights, settings.head, images.shape[1])
    _check_size(model, settings.arch, images.shape[1])
    frozen, net = split_frozen(model, settings.freeze)
    with tempfile.TemporaryDirectory() as spare, _explained_memory(settings.batch_size):
        model.to(device).to(memory_format=torch.channels_last)
        folder = resume or Path(spare)
        feeds = _make_feeds(images, train, val, settings, frozen, folder, device, precision == "bf16")
        checkpoint = Checkpoint(folder) if resume else None
        report = _Report(checkpoint, history, on_epoch, progress)
        learner = Learner(net, feeds[0], _targets(train), feeds[1], _targets(val), settings, report, progress)
        if checkpoint and (state := checkpoint.load()):
            learner.set_state(state)
            print(f"resuming after epoch {len(learner.history)} of {settings.epochs}")
            report.tell(learner.history, learner.history)
        if not learner.finished:
            _run(learner, settings, precision, device, spare)
        learner.close()
        if checkpoint:
            checkpoint.wait()
    net.load_state_dict(learner.best)
    return Fitted(model.cpu().eval(), learner.history, learner.best_epoch, device.type, precision)


class _Report:
    """What happens after an epoch: its state, the history and whoever wants to hear of it."""

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        history: Path | None,
        on_epoch: Callable[[Row], None] | None,
        progress: bool,
    ) -> None:
        self.checkpoint, self.history, self.on_epoch, self.progress = checkpoint, history, on_epoch, progress

    def __call__(self, learner: Learner) -> None:
        if self.checkpoint:
            self.checkpoint.save(learner.get_state())
        self.tell(learner.history, learner.history[-1:])

    def tell(self, rows: list[Row], news: list[Row]) -> None:
        """Write all rows, and pass the new ones on."""
        if self.history:
            write_csv(self.history, pd.DataFrame(rows))
        for row in news:
            if self.progress:
                tqdm.write(
                    f"epoch {row['epoch']}: loss {row['train_loss']:.4f}, validation loss {row['val_loss']:.4f}, "
                    f"AUROC {row['val_auroc']:.4f}, {row['seconds']:.1f} s"
                )
            if self.on_epoch:
                self.on_epoch(row)


def _make_feeds(
    images: np.ndarray,
    train: Films,
    val: Films,
    settings: TrainSettings,
    frozen: nn.Module | None,
    folder: Path,
    device: torch.device,
    bf16: bool,
) -> tuple[Feed, Feed]:
    function = None if frozen is None else speed_up(frozen, device, bf16)
    feeds = (
        FilmFeed(Rows(images, train.rows, device), settings.augment, function),
        FilmFeed(Rows(images, val.rows, device), Augmentation(), function),
    )
    variants = count_variants(settings.augment, settings.cache_variants, settings.epochs)
    if frozen is None or not variants:
        return feeds
    stored = []
    for name, feed, count in zip(("train", "val"), feeds, (variants, 1), strict=True):
        array = store_features(folder / f"{name}.npy", feed, count, settings.seed, bf16)
        stored.append(StoredFeed(Rows(array, np.arange(len(array)), device), count, feed.augmentation))
    return stored[0], stored[1]


def _run(learner: Learner, settings: TrainSettings, precision: str, device: torch.device, folder: str) -> None:
    if device.type == "cuda":
        torch.backends.cudnn.benchmark_limit = _ALGORITHMS
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=settings.epochs - len(learner.history),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        try:
            trainer.fit(learner)
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None  # Lightning turns Ctrl-C into an exit of its own
            raise


@contextmanager
def _explained_memory(batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise ValueError(
            f"the GPU's memory is too small for train.batch_size {batch_size}; try {max(1, batch_size // 2)}"
        ) from None


def _targets(films: Films) -> Tensor:
    return torch.from_numpy(np.array(films.targets, dtype=np.int64))


def _check_films(train: Films, val: Films) -> None:
    for name, films in (("train", train), ("val", val)):
        for target, label in enumerate(("NORMAL", "PNEUMONIA")):
            if not (films.targets == target).any():
                raise ValueError(f"split {name} has no {label} film; check the section split of params.yaml")


def _check_size(model: nn.Module, arch: str, size: int) -> None:
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"train.arch: {arch} cannot take preprocess.size {size}, raise it ({reason})") from error
    model.train()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and warnings, which speak to people who write trainers."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
