"""Reading a YAML file, with line and column of each error."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jaxrefine.app.config.schema import ConfigError, key_text, show
from jaxrefine.data import InputError

# Far above any configuration. PyYAML is slow, and `<<: [*a, *a]` doubles at each level.
_LARGEST_BYTES = 1 << 20
_MOST_KEYS = 10_000


class _Loader(yaml.SafeLoader):
    """A safe loader whose every error has a line and a column."""

    _keys = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self._keys += len(node.value)
        if self._keys > _MOST_KEYS:
            problem = f"more than {_MOST_KEYS} keys, where merged keys count each time"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML does not wrap all errors of its parsers
            kind = str(node.tag).rpartition(":")[2]
            problem = f"{show(node.value)} is not a valid {kind}"
            raise yaml.constructor.ConstructorError(
                None, None, problem, node.start_mark
            ) from error


def _duplicates(node: yaml.Node | None) -> Iterator[ConfigError]:
    """Find duplicate keys, of which PyYAML would keep the last."""
    waiting, seen = [("", node)], set()
    for path, node in waiting:  # the list grows during the loop
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(f"{path}[{i}]", item) for i, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], list[int]] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                name = key_text(key.value)
                waiting.append((f"{path}.{name}" if path else name, value))
                lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
            for (_, text), where in lines.items():
                if len(where) > 1:
                    name = key_text(text)
                    found = "given in lines " + " and ".join(map(str, where))
                    full = f"{path}.{name}" if path else name
                    yield ConfigError(full, found, "duplicated key; keep one of them")


def _syntax_error(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        problem = f"the character {chr(error.character)!r} is not allowed in YAML"
    else:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = getattr(error, "problem", None) or getattr(error, "context", None)
    return f"line {line}, column {column}: {problem} — the file must be valid YAML there"


def read_yaml(path: str | os.PathLike[str]) -> tuple[Any, list[ConfigError]]:
    """Reads a YAML file, with a safe loader.

    Returns:
        The content of the file, and the errors about duplicate keys.

    Raises:
        InputError: The file cannot be read, is not UTF-8, or is not YAML.
    """
    if Path(path).suffix.lower() == ".csv" and Path(path).exists():
        raise InputError(
            f"{path}: is a table, not a configuration; `jaxrefine init {path}` makes one"
        )
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise InputError(f"{path}: is a device or a pipe — give the path of a YAML file")
    try:
        size = Path(path).stat().st_size
        if size > _LARGEST_BYTES:
            raise InputError(
                f"{path}: {size} bytes — a configuration has at most {_LARGEST_BYTES}; "
                "is it one?"
            )
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file — give the path of a YAML file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a directory — give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start + 1} is not UTF-8 — save the file as UTF-8"
        ) from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{path}: cannot be read ({reason}) — give a readable file"
        ) from None
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        duplicates = list(_duplicates(node))
        return (None if node is None else loader.construct_document(node)), duplicates
    except yaml.YAMLError as error:
        raise InputError(f"{path}: {_syntax_error(error, text)}") from None
    except RecursionError:
        raise InputError(
            f"{path}: nested too deeply — a config has three levels at most"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
