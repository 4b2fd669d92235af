"""Packages that only some commands need, and what to say where they are missing."""

import sys
from importlib import import_module

from jaxrefine.data.errors import InputError


def require_packages(purpose: str, *packages: str, extra: str) -> None:
    """Asks for packages before any work is done that would be in vain without them.

    Args:
        purpose: What needs them, as a message begins: "a report".
        packages: Their names, for import and for pip alike.
        extra: The extra of jaxrefine's own installation that brings them.

    Raises:
        InputError: One of them cannot be imported.
    """
    missing = []
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            missing.append(package)
    if missing:
        raise InputError(
            f"{purpose} needs {' and '.join(missing)}, not installed here; install with: "
            f"{sys.executable} -m pip install {' '.join(missing)} "
            f"(jaxrefine's extra {extra!r} brings them too)"
        )
