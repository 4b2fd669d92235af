"""Optional packages, and the message if one is missing."""

import sys
from importlib import import_module

from jaxrefine.data.errors import InputError


def require_packages(purpose: str, *packages: str, extra: str) -> None:
    """Check that packages are installed, before work that needs them.

    Args:
        purpose: What needs them, to begin the message: "a report".
        packages: Their names, for import and for pip alike.
        extra: The extra of jaxrefine that installs them.

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
