"""Compiled programs, kept on disk."""

import os
from pathlib import Path

import jax
import platformdirs


def use_compilation_cache(setting: str | Path = "auto") -> Path | None:
    """Keep compiled programs on disk, so that the next process need not compile.

    The program does so by itself. A script calls it before its first computation.

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
    # Also what compiles in no time: a run has some dozens of small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder
