import numpy as np
import pytest
from small_package import make_package

from pulmo.base.errors import UserError
from pulmo.package.familiarity import Familiarity
from pulmo.package.info import read_info
from pulmo.package.storage import FAMILIARITY, read_familiarity

DICE = np.random.default_rng(0)


def some() -> Familiarity:
    sides = (3, 5)
    means = [DICE.normal(size=side).astype(np.float32) for side in sides]
    roots = [DICE.normal(size=(side, side)) for side in sides]
    return Familiarity(means, [(root @ root.T).astype(np.float32) for root in roots], 4.5)


def test_the_distance_is_the_sum_of_logarithms_of_mahalanobis():
    known = some()
    stages = [DICE.normal(size=(7, 3)), DICE.normal(size=(7, 5))]
    for film, distance in enumerate(known.measure(stages)):
        each = [(stage[film] - mean, p) for stage, mean, p in zip(stages, known.means, known.precisions, strict=True)]
        assert distance == pytest.approx(sum(np.log(away @ p @ away) for away, p in each))


def test_the_middle_of_training_is_familiar_and_what_has_no_distance_is_not():
    known = some()
    assert not known.is_beyond(known.measure([mean[None] for mean in known.means]))[0]
    assert known.is_beyond(known.measure([mean[None] + 1e6 for mean in known.means]))[0]
    assert known.is_beyond(known.measure([mean[None] * np.nan for mean in known.means]))[0]


def test_it_comes_back_from_its_bytes_the_same():
    known = some()
    again = Familiarity.from_bytes(known.to_bytes())
    stages = [DICE.normal(size=(4, 3)), DICE.normal(size=(4, 5))]
    assert (again.measure(stages) == known.measure(stages)).all()
    assert again.limit == known.limit
    assert known.to_bytes() == again.to_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", some().to_bytes()[:-50]])
def test_what_is_damaged_is_refused(content):
    with pytest.raises(UserError, match="familiarity"):
        Familiarity.from_bytes(content)


def test_a_package_without_it_answers_all_and_one_whose_file_changed_none(tmp_path):
    plain = make_package(tmp_path / "plain")
    assert read_familiarity(plain, read_info(plain)) is None
    package = make_package(tmp_path / "package", familiarity=some())
    kept = read_familiarity(package, read_info(package))
    assert kept is not None
    assert kept.limit == 4.5
    (package / FAMILIARITY).write_bytes(b"other")
    with pytest.raises(UserError, match="damaged"):
        read_familiarity(package, read_info(package))
    (package / FAMILIARITY).unlink()
    with pytest.raises(UserError, match="incomplete"):
        read_familiarity(package, read_info(package))
