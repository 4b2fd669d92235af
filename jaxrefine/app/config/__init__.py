"""The configuration: the meaning of each key, reading it, and writing a new one."""

from jaxrefine.app.config.config import Config as Config
from jaxrefine.io.paths import resolve_path as resolve_path
