"""The box of the doors."""

import gc

import pytest


@pytest.fixture(scope="module")
def box(smoke, tmp_path_factory):
    from doors.box import Box

    with pytest.MonkeyPatch.context() as patch:
        yield Box(smoke, tmp_path_factory.mktemp("doors"), patch)
        gc.unfreeze()
