"""What tests of refinement share."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the run-time type checks of the tests, which would refuse some of it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
