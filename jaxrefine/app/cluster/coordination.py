"""JAX's coordination service: short texts between processes, and who is alive.

`jax.distributed.initialize` starts it, with heartbeats. Its store of texts and its list of
live processes have no public name in JAX (the public functions of
`jax.experimental.multihost_utils` pass arrays through the devices' own network, which asks
for as many devices in each process). This is the only module that reaches behind the
public names.
"""

from collections.abc import Iterable
from typing import Any

from jax._src import distributed
from jax.errors import JaxRuntimeError


class Unreachable(Exception):
    """The service does not answer: process 0 is gone, or this process has left."""


def _client() -> Any:
    client = distributed.global_state.client
    if client is None:
        raise Unreachable
    return client


def put(key: str, text: str) -> None:
    """Store a text for all processes; the first one under a key stays.

    Raises:
        Unreachable: The service does not answer.
    """
    try:
        _client().key_value_set(key, text)
    except JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise Unreachable from error


def get(key: str, timeout_s: float) -> str | None:
    """A text that some process stores, or will have stored by then; None without one.

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
    """Those of the processes that are alive and have not left.

    Returns once all of these have called it, with the same answer to each.

    Raises:
        Unreachable: The service does not answer.
    """
    try:
        return set(_client().get_live_nodes(list(processes)))
    except JaxRuntimeError as error:
        raise Unreachable from error
