"""Formulas are tested on small arrays, for which compilation takes most of the time."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled_in_less_time(compiled_in_less_time: None) -> None:
    """For every module here."""
