"""The cache of compiled programs on disk."""

import os
from pathlib import Path

import jax
import platformdirs


def use_compilation_cache(setting: str | Path = "auto") -> Path | None:
    """Keep compiled programs on disk, so that later processes need not compile them.

    The command line does this by itself. A script should call it before it computes.

    Args:
        setting: "auto" for the user's cache folder, or `JAX_COMPILATION_CACHE_DIR` if it is
            set; "off"; or a folder.

    Returns:
        The folder; None without a cache.
    """
    if setting == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    if setting == "auto":
        default = platformdirs.user_cache_path("jaxrefine") / "compiled"
        folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", default))
    else:
        folder = Path(setting)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Include programs that compile quickly: a run has some dozens of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder
