"""Random changes of a whole batch of films at once, drawn per image, on the device where the batch lies.

A step takes gray values (N, S, S) in 0..255, the settings and a generator, and returns the same; a new one is a
function in STEPS and a field of AugmentParams. Off means untouched and nothing drawn.
"""

import hashlib
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from pulmo.base.params import AugmentParams

SPECTRUM_BIN = 4  # cycles per image; the lowest bin, which holds the anatomy at large, stays as it is
MOST_GAIN = 2.5  # of the log amplitude in a bin


Step = Callable[[Tensor, AugmentParams, Generator], Tensor]


def has_few_variants(settings: AugmentParams) -> bool:
    """True where an image can only come out as itself or as its mirror image."""
    return not any(value for name, value in settings if name not in ("flip", "edge"))


def make_generator(device: torch.device, *key: object) -> Generator:
    """A generator on `device` whose numbers follow from the key (seed, epoch, step, ...) alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return Generator(device).manual_seed(int.from_bytes(digest[:7]))


def augment(images: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    """Augmented float32 (N, S, S) in 0..255 of gray images (N, S, S) in 0..255."""
    gray = _flip(images, settings, generator).float()  # first, while a pixel is a byte
    with torch.autocast(gray.device.type, enabled=False):  # bf16 cannot tell places half a pixel apart
        for step in STEPS:
            gray = step(gray, settings, generator)
    return gray.clamp(0, 255)


def scale_down(images: Tensor, size: int) -> Tensor:
    """Films (N, S, S) as float32 (N, size, size), each new pixel the weighted mean of those that it covers."""
    with torch.autocast(images.device.type, enabled=False):
        scaled = F.interpolate(images.float().unsqueeze(1), size=(size, size), mode="bilinear", antialias=True)
    return scaled.squeeze(1)


def draw_flips(images: int, settings: AugmentParams, generator: Generator) -> Tensor:
    """Which images are mirrored, bool (N,); the first numbers that `augment` draws."""
    return torch.rand(images, generator=generator, device=generator.device) < settings.flip


def _flip(gray: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    if not settings.flip:
        return gray
    return torch.where(draw_flips(len(gray), settings, generator)[:, None, None], gray.flip(-1), gray)


def _spectrum(gray: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    """Give some films the sharpness of another of the batch: sharpness tells how a film was made, not what it shows."""
    if not settings.spectrum:
        return gray
    donors = torch.rand(len(gray), generator=generator, device=gray.device).argsort()
    taken = torch.rand(len(gray), generator=generator, device=gray.device) < settings.spectrum
    return torch.where(taken[:, None, None], take_spectra(gray, log_spectra(gray)[donors]), gray)


def swap_acquisition(gray: Tensor) -> Tensor:
    """Films (N, S, S) in 0..255 with the power spectrum, mean and spread of the one before in the batch, the first with
    those of the last; what lies where stays. Batches are drawn by lot, so this draws nothing."""
    with torch.autocast(gray.device.type, enabled=False):
        swapped = take_spectra(gray, log_spectra(gray).roll(1, 0))
        spread, mean = torch.std_mean(swapped, dim=(1, 2), keepdim=True)
        wanted_spread, wanted_mean = (value.roll(1, 0) for value in torch.std_mean(gray, dim=(1, 2), keepdim=True))
        return (wanted_mean + (swapped - mean) * (wanted_spread / spread.clamp(min=1))).clamp(0, 255)


def log_spectra(gray: Tensor) -> Tensor:
    """Logarithm of the mean power of films (N, S, S) in rings of spatial frequency (N, rings)."""
    return _log_power(_transform(gray), gray.shape[-1])


def take_spectra(gray: Tensor, spectra: Tensor) -> Tensor:
    """Films (N, S, S) with `spectra` (N, rings) for their own; what lies where, the phases, and the mean stay."""
    waves, side = _transform(gray), gray.shape[-1]
    gain = ((spectra - _log_power(waves, side)) / 2).clamp(-MOST_GAIN, MOST_GAIN)
    gain[:, 0] = 0
    ring, _ = _rings(side, gray.device)
    changed: Tensor = torch.fft.irfft2(waves * gain.exp()[:, ring], s=gray.shape[1:])
    return changed + gray.mean(dim=(1, 2), keepdim=True)


def _transform(gray: Tensor) -> Tensor:
    """Half-spectra (N, S, S // 2 + 1) of films less their mean."""
    waves: Tensor = torch.fft.rfft2(gray - gray.mean(dim=(1, 2), keepdim=True))
    return waves


@lru_cache
def _rings(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The ring of each frequency of a half-spectrum (S, S // 2 + 1), and how many frequencies are in each (rings,)."""
    cycles = np.hypot(side * np.fft.fftfreq(side)[:, None], side * np.fft.rfftfreq(side))
    ring = (cycles / SPECTRUM_BIN).astype(np.int64)
    sizes = np.bincount(ring.ravel())
    return torch.from_numpy(ring).to(device, non_blocking=True), torch.from_numpy(sizes).to(device, non_blocking=True)


def _log_power(waves: Tensor, side: int) -> Tensor:
    ring, sizes = _rings(side, waves.device)
    power = waves.abs().square().flatten(1)
    total = power.new_zeros(len(power), len(sizes)).index_add_(1, ring.flatten(), power)
    return torch.log(total / sizes + 1e-6)


def _move(gray: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    """Rotation, zoom, aspect and translation by one resampling; what comes from outside is black or as the edge."""
    if not (settings.rotation or settings.zoom or settings.aspect or settings.translation):
        return gray
    reaches = [math.radians(settings.rotation), settings.zoom, 2 * settings.translation, 2 * settings.translation]
    reaches += [settings.aspect] if settings.aspect else []
    angle, zoom, right, down, *aspect = _spread(gray, generator, *reaches)
    scale = (1 + zoom).reciprocal()
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    across, along = (cos, -sin), (sin, cos)
    if aspect:
        wide = (1 + aspect[0]).sqrt()
        across, along = (cos / wide, -sin / wide), (sin * wide, cos * wide)
    matrix = torch.stack([*across, right, *along, down], dim=1).view(-1, 2, 3)
    places = _places(gray.shape[-1], gray.device).expand(len(gray), -1, -1)
    grid = torch.bmm(places, matrix.mT).view(*gray.shape, 2)
    if not settings.edge:
        return _sample(gray, grid, "zeros")
    drawn = torch.rand(len(gray), generator=generator, device=gray.device) < settings.edge
    continued = _sample(gray, grid, "border")
    return (
        continued if settings.edge == 1 else torch.where(drawn[:, None, None], continued, _sample(gray, grid, "zeros"))
    )


def _sample(gray: Tensor, grid: Tensor, outside: str) -> Tensor:
    return F.grid_sample(gray.unsqueeze(1), grid, align_corners=False, padding_mode=outside).squeeze(1)


@lru_cache
def _places(side: int, device: torch.device) -> Tensor:
    """The places of the pixels of a film (S * S, 3): across, down and 1. Times a matrix they give `F.affine_grid`,
    which lays them out anew for each film and takes more than twice as long."""
    line = torch.linspace(-1, 1, side) * (side - 1) / side
    places = torch.stack([line.expand(side, side), line[:, None].expand(side, side), torch.ones(side, side)], dim=-1)
    return places.view(-1, 3).to(device, non_blocking=True)


def _blur(gray: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    """Gaussian blur, sigma uniform in 0..blur."""
    if not settings.blur:
        return gray
    sigma = torch.rand(len(gray), generator=generator, device=gray.device) * settings.blur
    reach = min(math.ceil(3 * settings.blur), gray.shape[-1] - 1)
    offsets = torch.arange(-reach, reach + 1, device=gray.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    stacked = F.pad(gray.unsqueeze(0), [reach] * 4, mode="reflect")  # one channel per image: one grouped convolution
    stacked = F.conv2d(stacked, kernel[:, None, None, :], groups=len(gray))
    return F.conv2d(stacked, kernel[:, None, :, None], groups=len(gray)).squeeze(0)


def _expose(gray: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    """Contrast around each image's mean, then brightness."""
    if settings.contrast:
        mean = gray.mean(dim=(1, 2), keepdim=True)
        gray = mean + (gray - mean) * (1 + _spread(gray, generator, settings.contrast)[0])[:, None, None]
    if settings.brightness:
        gray = gray + 255 * _spread(gray, generator, settings.brightness)[0][:, None, None]
    return gray


def _noise(gray: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    if not settings.noise:
        return gray
    deviation = 255 * settings.noise * torch.rand(len(gray), 1, 1, generator=generator, device=gray.device)
    return gray + deviation * torch.randn(gray.shape, generator=generator, device=gray.device)


def _jpeg(gray: Tensor, settings: AugmentParams, generator: Generator) -> Tensor:
    """Films with the losses of a gray JPEG, without its entropy coding: quantised cosine coefficients of blocks of
    8x8 pixels."""
    if not settings.jpeg:
        return gray
    drawn = torch.rand(len(gray), 1, 1, generator=generator, device=gray.device)
    quality = (settings.jpeg + drawn * (101 - settings.jpeg)).floor().clamp(1, 100)
    return compress_jpeg(gray, quality)


def compress_jpeg(gray: Tensor, quality: Tensor) -> Tensor:
    """Gray images (N, S, S) as a baseline JPEG of the given quality 1..100 (N, 1, 1) would return them (ITU T.81)."""
    table = torch.tensor(_LUMINANCE, dtype=torch.float32).view(8, 8).to(gray.device, non_blocking=True)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = ((table * scale.floor() + 50) / 100).floor().clamp(1, 255)[:, None, None]
    rank = torch.arange(8, device=gray.device, dtype=torch.float32)
    cosine = torch.cos(math.pi / 8 * rank[:, None] * (rank + 0.5)) / 2
    cosine[0] = math.sqrt(1 / 8)
    height, width = gray.shape[1:]
    padded = F.pad(gray.round().clamp(0, 255).unsqueeze(1), [0, -width % 8, 0, -height % 8], mode="replicate")
    blocks = (padded - 128).view(len(gray), padded.shape[2] // 8, 8, -1, 8).transpose(2, 3)
    levels = (cosine @ blocks @ cosine.T / steps).round() * steps
    restored = (cosine.T @ levels @ cosine).transpose(2, 3).reshape(padded.shape).squeeze(1)
    return (restored[:, :height, :width] + 128).round().clamp(0, 255)


def _spread(gray: Tensor, generator: Generator, *reaches: float) -> list[Tensor]:
    """For each reach a number per image (N,), uniform within it to either side."""
    drawn = torch.empty((len(reaches), len(gray)), device=gray.device).uniform_(-1, 1, generator=generator)
    return [values * reach for values, reach in zip(drawn, reaches, strict=True)]


STEPS: tuple[Step, ...] = (_spectrum, _move, _blur, _expose, _noise, _jpeg)
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
