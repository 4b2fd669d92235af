"""Settings of JAX that the program makes, and the library leaves alone."""

import os
from pathlib import Path

import jax
import platformdirs


def use_compilation_cache(setting: str) -> Path | None:
    """Keep compiled programs on disk, so that the next run need not compile.

    Args:
        setting: "auto": the user's cache folder, or `JAX_COMPILATION_CACHE_DIR` where
            that is set. "off". Anything else is a folder.

    Returns:
        The folder; None where there is no cache.
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
    # Also what compiles in half a second: a run has some dozens of small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return folder
