import numpy as np

from pulmo.films.rows.stack import FilmStack


def test_a_stack_gives_what_an_array_of_its_films_would(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    rows = [7, 0, 3, 3]
    stack, copied = FilmStack(np.load(tmp_path / "images.npy", mmap_mode="r"), rows), images[rows]
    assert (stack.shape, len(stack)) == (copied.shape, len(copied))
    for which in (slice(1, 3), slice(2, 99), np.array([3, 0]), slice(0, 0)):
        np.testing.assert_array_equal(stack[which], copied[which])
