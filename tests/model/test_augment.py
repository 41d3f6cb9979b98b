import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_settings import EVERY_CHANGE

from pulmo.base.params import AugmentParams
from pulmo.model.augmentation import (
    _places,
    augment,
    compress_jpeg,
    draw_flips,
    has_few_variants,
    log_spectra,
    make_generator,
    swap_acquisition,
)

CPU = torch.device("cpu")


def draw_film(size: int = 64) -> np.ndarray:
    """A smooth picture with an edge and texture, uint8."""
    y, x = np.mgrid[:size, :size] / size
    texture = np.random.default_rng(0).normal(0, 6, (size, size))
    return (60 + 100 * x * y + 60 * (x > 0.6) + texture).clip(0, 255).astype(np.uint8)


def batch(films: int = 6, size: int = 64) -> torch.Tensor:
    return torch.from_numpy(draw_film(size)).expand(films, -1, -1).clone()


def run(settings: AugmentParams, *key: object, films: int = 6) -> torch.Tensor:
    return augment(batch(films), settings, make_generator(CPU, *key))


def test_off_changes_nothing_and_draws_nothing():
    generator = make_generator(CPU, 1)
    before = generator.get_state()
    assert torch.equal(augment(batch(), AugmentParams(), generator), batch().float())
    assert torch.equal(generator.get_state(), before)


def test_the_key_alone_determines_the_result():
    assert torch.equal(run(EVERY_CHANGE, 1, "augment", 2), run(EVERY_CHANGE, 1, "augment", 2))
    assert not torch.equal(run(EVERY_CHANGE, 1, "augment", 2), run(EVERY_CHANGE, 1, "augment", 3))


@pytest.mark.parametrize("name", sorted(set(AugmentParams.model_fields) - {"spectrum", "edge"}))
def test_every_change_alone_differs_from_image_to_image_and_stays_in_range(name):
    result = run(AugmentParams(**{name: getattr(EVERY_CHANGE, name)}), 5, films=16)
    assert result.dtype == torch.float32
    assert result.shape == (16, 64, 64)
    assert 0 <= result.min() <= result.max() <= 255
    different = len({tuple(film.flatten().tolist()) for film in result})
    assert different == {"flip": 2}.get(name, 16) or (
        name == "jpeg" and different > 8
    )  # whole-numbered qualities repeat


def test_the_precision_of_training_does_not_reach_the_augmentation():
    with torch.autocast("cpu", torch.bfloat16):
        lower = run(EVERY_CHANGE, 7)
    assert lower.dtype == torch.float32
    assert torch.equal(lower, run(EVERY_CHANGE, 7))


def test_flips_mirror_exactly_the_drawn_images():
    settings = AugmentParams(flip=0.5)
    flipped = draw_flips(32, settings, make_generator(CPU, 9))
    assert 4 < flipped.sum() < 28
    result = augment(batch(32), settings, make_generator(CPU, 9))
    assert torch.equal(result[flipped], batch(32)[flipped].flip(-1).float())
    assert torch.equal(result[~flipped], batch(32)[~flipped].float())


def test_each_film_takes_the_acquisition_of_the_one_before_and_keeps_what_it_shows():
    noise = torch.randn((8, 64, 64), generator=make_generator(CPU, 1))
    sharpness, brightness = torch.linspace(4, 20, 8)[:, None, None], torch.linspace(90, 160, 8)[:, None, None]
    films = brightness + noise * sharpness
    with torch.autocast("cpu", torch.bfloat16):
        swapped = swap_acquisition(films)
    assert torch.allclose(log_spectra(swapped)[:, 1:], log_spectra(films).roll(1, 0)[:, 1:], atol=0.1)
    for measure in (torch.mean, torch.std):
        assert torch.allclose(measure(swapped, dim=(1, 2)), measure(films, dim=(1, 2)).roll(1), rtol=0.01)
    together = [np.corrcoef(one.flatten(), other.flatten())[0, 1] for one, other in zip(films, swapped, strict=True)]
    assert min(together) > 0.95
    assert torch.allclose(swap_acquisition(films[:1]), films[:1], atol=0.01)  # alone it has none to take


def test_some_films_take_the_spectrum_of_another_and_keep_their_mean_and_phases():
    noise = torch.randn((16, 64, 64), generator=make_generator(CPU, 1))
    films = (128 + noise * torch.linspace(4, 20, 16)[:, None, None]).clamp(0, 255)  # each rougher than the one before
    before = log_spectra(films)
    after = augment(films, AugmentParams(spectrum=0.5), make_generator(CPU, 2))
    changed = (after != films).flatten(1).any(dim=1)
    assert 4 <= changed.sum() <= 12
    donors = torch.cdist(log_spectra(after)[:, 1:], before[:, 1:]).argmin(dim=1)
    assert (donors[changed] != torch.arange(16)[changed]).all()
    assert torch.allclose(log_spectra(after)[:, 1:], before[donors, 1:], atol=0.05)
    assert torch.allclose(after.mean(dim=(1, 2)), films.mean(dim=(1, 2)), atol=0.1)
    together = [np.corrcoef(one.flatten(), other.flatten())[0, 1] for one, other in zip(films, after, strict=True)]
    assert min(together) > 0.95


def test_some_films_continue_their_edge_where_others_turn_black():
    films = torch.full((32, 64, 64), 200.0)
    after = augment(films, AugmentParams(rotation=20.0, edge=0.5), make_generator(CPU, 3))
    continued = (after > 199).flatten(1).all(dim=1)
    assert 8 <= continued.sum() <= 24
    assert (after[~continued].flatten(1).min(dim=1).values == 0).all()
    assert augment(films, AugmentParams(rotation=20.0, edge=1.0), make_generator(CPU, 3)).min() > 199


def test_only_flips_leave_few_variants():
    assert has_few_variants(AugmentParams(flip=0.5))
    assert has_few_variants(AugmentParams())
    assert has_few_variants(AugmentParams(flip=0.5, edge=1.0))  # an edge is seen where films move
    assert not has_few_variants(AugmentParams(flip=0.5, noise=0.1))


def find_centre(film: torch.Tensor) -> tuple[float, float]:
    grid = torch.arange(film.shape[-1], dtype=torch.float32)
    return float((film.sum(1) * grid).sum() / film.sum()), float((film.sum(0) * grid).sum() / film.sum())


def test_translation_reaches_its_share_of_the_side_in_every_direction():
    spot = torch.zeros(200, 64, 64)
    spot[:, 30:34, 30:34] = 255
    moved = augment(spot, AugmentParams(translation=0.25), make_generator(CPU, 3))
    shifts = np.array([find_centre(film) for film in moved]) - 31.5
    assert np.abs(shifts).max() <= 16.1
    assert (shifts.max(axis=0) > 14).all()
    assert (shifts.min(axis=0) < -14).all()


def test_rotation_turns_about_the_centre_by_at_most_its_angle():
    spot = torch.zeros(200, 65, 65)
    spot[:, 31:34, 55:58] = 255
    turned = augment(spot, AugmentParams(rotation=30), make_generator(CPU, 3))
    down, right = (np.array([find_centre(film) for film in turned]) - 32).T
    assert np.allclose(np.hypot(down, right), 24, atol=0.3)
    angles = np.degrees(np.arctan2(down, right))
    assert np.abs(angles).max() <= 30.5
    assert angles.max() > 27
    assert angles.min() < -27


@pytest.mark.parametrize("side", [63, 224])
def test_pixels_are_sampled_where_pytorch_puts_them(side):
    matrix = torch.randn((3, 2, 3), generator=torch.Generator().manual_seed(0))
    grid = F.affine_grid(matrix, [3, 1, side, side], align_corners=False)
    places = _places(side, torch.device("cpu")).expand(3, -1, -1)
    assert torch.equal(torch.bmm(places, matrix.mT).view(3, side, side, 2), grid)


def test_zoom_scales_by_at_most_its_share():
    bar = torch.zeros(200, 64, 64)
    bar[:, 22:42, 22:42] = 255
    sides = augment(bar, AugmentParams(zoom=0.2), make_generator(CPU, 3)).sum(dim=(1, 2)).div(255).sqrt()
    assert 15.9 < sides.min() < 16.5
    assert 23.5 < sides.max() < 24.1


def test_blur_is_gaussian():
    film = batch(1).float()
    settings = AugmentParams(blur=2.0)
    result = augment(film, settings, make_generator(CPU, 4))[0].numpy()
    sigma = float(torch.rand(1, generator=make_generator(CPU, 4))) * 2
    expected = cv2.GaussianBlur(film[0].numpy(), (13, 13), sigma, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(result - expected).max() < 0.01
    assert np.abs(result - film[0].numpy()).mean() > 1


def test_noise_has_the_drawn_deviation():
    flat = torch.full((300, 32, 32), 128.0)
    deviation = augment(flat, AugmentParams(noise=0.1), make_generator(CPU, 4)).std(dim=(1, 2)) / 255
    assert deviation.max() <= 0.105
    assert deviation.max() > 0.09
    assert deviation.min() < 0.01


def test_contrast_keeps_the_mean_and_brightness_the_differences():
    film = batch(50).float() / 2 + 60
    contrast = augment(film, AugmentParams(contrast=0.2), make_generator(CPU, 4))
    assert torch.allclose(contrast.mean(dim=(1, 2)), film.mean(dim=(1, 2)), atol=0.01)
    ratio = contrast.std(dim=(1, 2)) / film.std(dim=(1, 2))
    assert 0.8 <= ratio.min() < 0.85
    assert 1.15 < ratio.max() <= 1.2
    shift = (augment(film, AugmentParams(brightness=0.1), make_generator(CPU, 4)) - film) / 255
    assert shift.std(dim=(1, 2)).max() < 1e-5
    assert -0.1 <= shift.min() < -0.08
    assert 0.08 < shift.max() <= 0.1


@pytest.mark.parametrize("quality", [10, 40, 75, 95])
@pytest.mark.parametrize("size", [64, 61])
def test_jpeg_loses_what_a_real_jpeg_loses(quality, size):
    film = draw_film(size)
    written = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(written, cv2.IMREAD_GRAYSCALE).astype(np.float32)
    result = compress_jpeg(torch.from_numpy(film)[None].float(), torch.full((1, 1, 1), float(quality)))[0].numpy()
    assert np.abs(result - expected).mean() < 0.4  # libjpeg rounds halves and pads edges its own way
    assert np.abs(film - expected).mean() > 1.2


def test_jpeg_draws_no_quality_below_the_lowest():
    lowest = compress_jpeg(batch(1).float(), torch.full((1, 1, 1), 50.0)) - batch(1)
    drawn = augment(batch(60), AugmentParams(jpeg=50), make_generator(CPU, 2)) - batch(60)
    errors = drawn.abs().mean(dim=(1, 2))
    assert errors.max() <= lowest.abs().mean() * 1.1
    assert errors.min() < errors.max() / 3
