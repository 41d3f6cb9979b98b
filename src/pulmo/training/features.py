"""The inputs of the trainable network: films, or the outputs of the frozen part, computed once and stored."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Generator, Tensor, nn
from tqdm import tqdm

from pulmo.base.cores import give_way
from pulmo.base.errors import UserError
from pulmo.base.files import is_sealed, seal, whole_file
from pulmo.base.params import AugmentParams, TrainParams
from pulmo.model.augmentation import (
    augment,
    draw_flips,
    has_few_variants,
    make_generator,
    scale_down,
    swap_acquisition,
)
from pulmo.model.scoring import AS_IMAGENET, Preparation, to_input
from pulmo.training.rows import Films, Rows
from pulmo.training.speedup import Function, speed_up

STORE_BATCH = {"cpu": 16, "cuda": 128}  # fastest for a forward pass: 4 and 64 are a tenth slower on a CPU


class Feed(Protocol):
    """Positions (batch,) and a generator, or None for no augmentation -> inputs of the trainable network.

    `size` is the side in pixels that films are scaled down to, 0 for films as they are.
    """

    def __call__(self, positions: Tensor, generator: Generator | None, size: int = 0) -> Tensor: ...


class FilmFeed:
    """Films, augmented, normalised and passed through the frozen part; with `swaps`, each batch that is augmented is
    followed by the same films in the acquisition of others."""

    def __init__(
        self,
        films: Rows,
        augmentation: AugmentParams,
        frozen: Function | None,
        preparation: Preparation = AS_IMAGENET,
        swaps: bool = False,
    ) -> None:
        self.films, self.augmentation, self.frozen, self.preparation = films, augmentation, frozen, preparation
        self.swaps = swaps

    def __call__(self, positions: Tensor, generator: Generator | None, size: int = 0) -> Tensor:
        gray = self.films[positions]
        if size:
            gray = scale_down(gray, size)
        if generator is not None:
            gray = augment(gray, self.augmentation, generator)
            gray = torch.cat([gray, swap_acquisition(gray)]) if self.swaps else gray
        return self.run_frozen(gray)

    def run_frozen(self, gray: Tensor) -> Tensor:
        """Inputs of the trainable network from gray values (batch, S, S)."""
        inputs = to_input(gray, self.preparation.mean, self.preparation.std)
        if self.frozen is None:
            return inputs
        with torch.no_grad():
            return self.frozen(inputs)


class StoredFeed:
    """Stored outputs of the frozen part: variant v of film i is row v * films + i.

    They are of films as they are: TrainParams has no early epochs where outputs are stored.
    """

    def __init__(self, stored: Rows, variants: int, augmentation: AugmentParams) -> None:
        self.stored, self.variants, self.augmentation = stored, variants, augmentation
        self.films = len(stored) // variants

    def __call__(self, positions: Tensor, generator: Generator | None, size: int = 0) -> Tensor:
        assert not size
        if generator is not None and self.variants > 1:
            variant = self._draw(len(positions), generator)
            positions = positions.to(variant.device, non_blocking=True) + self.films * variant
        features = self.stored[positions].float()
        return features.permute(0, 3, 1, 2) if features.ndim == 4 else features

    def _draw(self, films: int, generator: Generator) -> Tensor:
        if has_few_variants(self.augmentation):
            return draw_flips(films, self.augmentation, generator).long()
        return torch.randint(self.variants, (films,), generator=generator, device=generator.device)


def make_feeds(
    train: Films,
    val: Films,
    settings: TrainParams,
    frozen: nn.Module | None,
    folder: Path,
    fabric: Fabric,
    preparation: Preparation = AS_IMAGENET,
) -> tuple[Feed, Feed]:
    """Feeds of the films to train on and to validate on, from stored outputs in `folder` where storing pays."""
    bf16, device = settings.precision == "bf16", fabric.device
    function = None if frozen is None else speed_up(frozen, device, bf16)
    feeds = (
        FilmFeed(
            Rows(train.images, train.rows, device), settings.augment, function, preparation, settings.consistency > 0
        ),
        FilmFeed(Rows(val.images, val.rows, device), AugmentParams(), function, preparation),
    )
    variants = count_variants(settings.augment, settings.cache_variants, settings.epochs)
    if frozen is None or not variants:
        return feeds
    stored = []
    for name, feed, count in zip(("train", "val"), feeds, (variants, 1), strict=True):
        array = store_features(folder / f"{name}.npy", feed, count, settings.seed, bf16, fabric)
        stored.append(StoredFeed(Rows(array, np.arange(len(array)), device), count, feed.augmentation))
    return stored[0], stored[1]


def count_variants(augmentation: AugmentParams, drawn: int, epochs: int) -> int:
    """The number of outputs per film to store; 0 where storing does not pay or would not be exact.

    `drawn` is -1 to store nothing, 0 for exact variants alone (the film and its mirror image), else how many variants
    to draw per film from any other augmentation.
    """
    if drawn < 0:
        return 0
    variants = (2 if augmentation.flip else 1) if has_few_variants(augmentation) else drawn
    return variants if variants < epochs else 0


def store_features(file: Path, feed: FilmFeed, variants: int, seed: int, bf16: bool, fabric: Fabric) -> np.ndarray:
    """Write the frozen part's outputs of every film and variant as float16 (variants * films, ...), channels last,
    and return them memory-mapped. A whole file of an earlier process is taken as it is, a damaged one made anew.

    Each of several processes computes a share; the first one joins them.
    """
    first = fabric.is_global_zero
    if first and file.exists() and not is_sealed(file):
        tqdm.write(f"{file} is damaged: its outputs are computed anew")
        file.unlink()
    if not fabric.broadcast(file.exists()):
        file.parent.mkdir(parents=True, exist_ok=True)
        films = len(feed.films)
        slices = torch.split(torch.arange(films), STORE_BATCH[feed.films.device.type])
        batches = [(variant, positions) for variant in range(variants) for positions in slices]
        shape = _compute(feed, batches[0], variants, seed, bf16).shape[1:]
        size = int(variants * films * np.prod(shape) * 2)
        place = f"{size / 1e6:.0f} MB for {films} films x {variants} variants in {file.parent}"
        if size > shutil.disk_usage(file.parent).free:
            raise UserError(f"no room to store the frozen part's outputs ({place})", "set train.cache_variants: -1")
        if first:
            tqdm.write(f"storing the frozen part's outputs: {place}")
        begin, end = (len(batches) * part // fabric.world_size for part in (fabric.global_rank, fabric.global_rank + 1))
        progress = tqdm(
            batches[begin:end], desc="frozen part", unit="batch", disable=None if first else True, leave=False
        )
        outputs = (_compute(feed, batch, variants, seed, bf16) for batch in progress)
        _write_shares(file, outputs, (variants * films, *shape), fabric)
    stored: np.ndarray = np.load(file, mmap_mode="r")
    return stored


def _write_shares(file: Path, outputs: Iterable[np.ndarray], shape: tuple[int, ...], fabric: Fabric) -> None:
    """Write the outputs of all processes, in the order of their ranks, as one sealed array of the shape."""
    shares = [file.with_name(f"{file.name}.{rank}") for rank in range(1, fabric.world_size)]
    if fabric.is_global_zero:
        with whole_file(file) as temporary, temporary.open("wb") as out:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for part in outputs:
                out.write(part.tobytes())
            fabric.barrier()  # until the others have written theirs
            for share in shares:
                _append(out, share)
            out.flush()
            seal(temporary)
    else:
        with whole_file(shares[fabric.global_rank - 1]) as temporary, temporary.open("wb") as out:
            for part in outputs:
                out.write(part.tobytes())
        fabric.barrier()
    fabric.barrier()


def _append(out: BinaryIO, share: Path) -> None:
    if not share.exists():
        raise UserError(
            f"{share}, which another process wrote, is not there", "keep the project on a disk of all nodes"
        )
    with share.open("rb") as file:
        shutil.copyfileobj(file, out)
    share.unlink()


@torch.inference_mode()
def _compute(feed: FilmFeed, batch: tuple[int, Tensor], variants: int, seed: int, bf16: bool) -> np.ndarray:
    give_way()
    variant, positions = batch
    gray = feed.films[positions]
    if has_few_variants(feed.augmentation):
        gray = gray.flip(-1) if variant == 1 else gray
    else:
        generator = make_generator(feed.films.device, seed, "variant", variant, int(positions[0]))
        gray = augment(gray, feed.augmentation, generator)
    with torch.autocast(gray.device.type, torch.bfloat16, enabled=bf16):
        features = feed.run_frozen(gray).half()
    if not torch.isfinite(features).all():
        raise UserError("the frozen part's outputs do not fit into float16", "set train.cache_variants: -1")
    features = features.permute(0, 2, 3, 1) if features.ndim == 4 else features
    return features.contiguous().cpu().numpy()
