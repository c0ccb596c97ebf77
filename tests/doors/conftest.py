"""The box of the doors, and the table at the end of the tests."""

import gc

import pytest


@pytest.fixture(scope="module")
def box(smoke, tmp_path_factory):
    from doors.box import Box

    with pytest.MonkeyPatch.context() as patch:
        yield Box(smoke, tmp_path_factory.mktemp("doors"), patch)
        gc.unfreeze()


def pytest_terminal_summary(terminalreporter):
    from doors.table import summary

    if lines := summary():
        terminalreporter.section("doors")
        terminalreporter.write_line("\n".join(lines))
