"""What tests of refinement share."""

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest

import jaxrefine as jr


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the run-time type checks of the tests, which would refuse some of it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def template() -> jr.Template:
    """The template of `test_arguments`."""
    from tests.refine.test_arguments import WORLD

    return jr.make_template(WORLD.volume)


@pytest.fixture(scope="module")
def particles() -> jr.Particles:
    """The two particles of `test_arguments`."""
    from tests.refine.test_arguments import cut

    return cut()


@pytest.fixture
def refused(
    as_users_call_it: None, particles: jr.Particles, template: jr.Template
) -> Callable[[Callable[..., Any], str], None]:
    """Checks that a call raises an `InputError` with some words (a pattern)."""

    def check(call: Callable[..., Any], words: str) -> None:
        with pytest.raises(jr.InputError, match=f"(?s){words}"):
            call(particles, template)

    return check
