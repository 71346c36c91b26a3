"""A finished run with models that nobody trained, and photos of drawn faces."""

import pytest

from tests import made_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("made"), people=12, votes=False)


@pytest.fixture(scope="session")
def photos(drawn):
    return drawn / "eval" / "images"
