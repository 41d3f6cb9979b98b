import pytest
from toy_report import make_report

from pulmo.reporting.report import Report


@pytest.fixture(scope="session")
def report() -> Report:
    """The evaluation of 360 films of noise and a model that knows much."""
    return make_report()
