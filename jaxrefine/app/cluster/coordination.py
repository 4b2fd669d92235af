"""JAX's coordination service: short texts between processes, and which are alive.

`jax.distributed.initialize` starts it, with heartbeats. Its key-value store and its list of
live processes have no public names in JAX (the public functions of
`jax.experimental.multihost_utils` send arrays through the devices' own network, which
requires the same number of devices in each process). This is the only module that uses
non-public names.
"""

from collections.abc import Iterable
from typing import Any

from jax._src import distributed
from jax.errors import JaxRuntimeError


class Unreachable(Exception):
    """The service does not answer: process 0 has ended, or this process has left."""


def _client() -> Any:
    client = distributed.global_state.client
    if client is None:
        raise Unreachable
    return client


def put(key: str, text: str) -> None:
    """Store a text for all processes; the first text of a key is kept.

    Raises:
        Unreachable: The service does not answer.
    """
    try:
        _client().key_value_set(key, text)
    except JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise Unreachable from error


def get(key: str, timeout_s: float) -> str | None:
    """A text that a process has stored or stores before the time-out; None without one.

    Raises:
        Unreachable: The service does not answer.
    """
    try:
        return _client().blocking_key_value_get(key, round(1000 * timeout_s))
    except JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" in str(error):
            return None
        raise Unreachable from error


def alive(processes: Iterable[int]) -> set[int]:
    """The processes that are alive and have not left.

    Returns when all of these have called it, with the same answer for each.

    Raises:
        Unreachable: The service does not answer.
    """
    try:
        return set(_client().get_live_nodes(list(processes)))
    except JaxRuntimeError as error:
        raise Unreachable from error
