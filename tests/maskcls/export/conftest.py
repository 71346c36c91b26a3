"""A finished run, exported once for all tests: an export takes seconds a model."""

import pytest

from maskcls.export import bundle
from tests import made_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("made"), people=12, votes=False, folds=1)


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    return bundle.write(run, tmp_path_factory.mktemp("bundles") / "bundle é")


@pytest.fixture(scope="session")
def photos(drawn):
    return drawn / "eval" / "images"
