"""Conditions on a table's columns, such as `refined_scaled_mip > 8`.

`simpleeval` evaluates the syntax tree of the expression for one row after another, with a
list of allowed nodes and operators; nothing is executed as Python. Attributes, calls other
than those of two functions, indices and comprehensions are not allowed.
"""

import ast
import difflib
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool
from simpleeval import EvalWithCompoundTypes, InvalidExpression

from jaxrefine.data import InputError
from jaxrefine.io.table import ParticleTable, cells
from jaxrefine.io.table.schema import BY_NAME

_LONGEST = 10_000
_RIGHT = (
    'should be a condition on columns, such as "refined_scaled_mip > 8 and refined_status '
    "== 'converged'\""
)


def rows_that_fulfil(table: ParticleTable, text: str) -> Bool[np.ndarray, " n"]:
    """Mask of the rows of a table for which a condition holds.

    A condition may contain the table's columns (numbers, or text without surrounding
    spaces), numbers, text in quotes, + - * /, == != < <= > >=, chains such as `1 < x < 2`,
    `in (…)`, `and`, `or`, `not`, `abs(…)` and `empty(column)`. No comparison with an empty
    cell is true.

    Args:
        table: The table.
        text: The condition.

    Raises:
        InputError: It is invalid, has an unknown column, or compares text with a number.
    """
    where = f"--where {text[:200]!r}"
    tree = _parsed(where, text)
    names = _names(where, tree, table)
    columns = [_values(table, name) for name in names]
    evaluator = _evaluator()
    held = np.zeros(len(table), bool)
    for row, values in enumerate(zip(*columns, strict=True)):
        evaluator.names = dict(zip(names, values, strict=True))
        try:
            found = evaluator.eval(text, tree)
        except RecursionError as error:
            raise InputError(f"{where}: is nested too deeply; {_RIGHT}") from error
        except (InvalidExpression, TypeError, ValueError, OverflowError) as error:
            at = f"{table.path}, {table.locate(row)}"
            raise InputError(f"{where}: {error} ({at}); {_RIGHT}") from error
        if not isinstance(found, bool):
            raise InputError(f"{where}: is a value, {found!r}, not a condition; {_RIGHT}")
        held[row] = found
    return held


def _parsed(where: str, text: str) -> ast.expr:
    """The syntax tree of the expression, with allowed nodes only."""
    if len(text) > _LONGEST:
        raise InputError(f"{where}…: is longer than {_LONGEST} characters; {_RIGHT}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "" if "==" in text or "=" not in text else "; equality is written =="
        raise InputError(f"{where}: cannot be read{hint}; {_RIGHT}") from error
    for node in ast.walk(tree):
        call = isinstance(node, ast.Call)
        strange = call and not (
            isinstance(node.func, ast.Name)
            and node.func.id in _FUNCTIONS
            and len(node.args) == 1
            and not node.keywords
        )
        if strange or not isinstance(node, _ALLOWED):
            part = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
            known = ", ".join(_FUNCTIONS)
            raise InputError(
                f"{where}: {part[:60]!r} is not allowed in a condition (functions of one "
                f"value: {known}); {_RIGHT}"
            )
    return tree


def _names(where: str, tree: ast.expr, table: ParticleTable) -> list[str]:
    """The columns that an expression names."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    nodes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in called
    ]
    names = list(dict.fromkeys(node.id for node in nodes))
    errors = []
    for name in names:
        if name not in table.raw.columns:
            near = difflib.get_close_matches(name, table.raw.columns, n=1)
            meant = f"; is {near[0]} meant?" if near else "; text is written in quotes"
            errors.append(f"{where}: {table.path} has no column {name!r}{meant}")
    if errors:
        raise InputError(errors)
    if not names:
        raise InputError(f"{where}: names no column; {_RIGHT}")
    return names


def _values(table: ParticleTable, name: str) -> list[Any]:
    """A column as numbers, with NaN for empty cells, or as text."""
    texts = [text.strip() for text in table.raw[name]]
    column = BY_NAME.get(name)
    numbers = [cells.number(text) for text in texts]
    if column is None:  # numbers, if no cell has anything else
        is_text = any(
            text and math.isnan(x) for text, x in zip(texts, numbers, strict=True)
        )
    else:
        is_text = column.kind == "text"
    return texts if is_text else numbers


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison that is false for empty cells and fails for a number with text."""

    def of_two(one: Any, other: Any) -> bool:
        if isinstance(one, str) != isinstance(other, str):
            raise TypeError(f"{one!r} and {other!r}: a number and text cannot be compared")
        return not (_is_empty(one) or _is_empty(other)) and bool(compare(one, other))

    return of_two


def _is_empty(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _within(one: Any, others: Any) -> bool:
    """Membership in a list; text in text would be a substring search."""
    if not isinstance(others, list | tuple):
        raise TypeError(f"{others!r}: `in` wants a list, such as ('a', 'b')")
    equal = _compared(operator.eq)
    return any(equal(one, other) for other in others)


def _arithmetic(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], float]:
    """Arithmetic on numbers; NaN if there is no result."""

    def of_two(one: Any, other: Any) -> float:
        try:
            return compute(_as_number(one), _as_number(other))
        except (ZeroDivisionError, OverflowError):
            return math.nan

    return of_two


def _as_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r}: is not a number")
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r}: is not a condition and cannot be negated")
    return not value


_OPERATORS: dict[type, Callable[..., Any]] = {
    **{
        node: _compared(compare)
        for node, compare in (
            (ast.Eq, operator.eq),
            (ast.NotEq, operator.ne),
            (ast.Lt, operator.lt),
            (ast.LtE, operator.le),
            (ast.Gt, operator.gt),
            (ast.GtE, operator.ge),
        )
    },
    **{
        node: _arithmetic(compute)
        for node, compute in (
            (ast.Add, operator.add),
            (ast.Sub, operator.sub),
            (ast.Mult, operator.mul),
            (ast.Div, operator.truediv),
        )
    },
    ast.In: _within,
    ast.NotIn: lambda one, others: not _within(one, others),
    ast.Not: _truth,
    ast.USub: lambda value: -_as_number(value),
    ast.UAdd: _as_number,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": lambda value: abs(_as_number(value)),
    "empty": lambda value: value == "" or _is_empty(value),
}
_NODES = (
    *(ast.BoolOp, ast.Compare, ast.UnaryOp, ast.BinOp),
    *(ast.Call, ast.Name, ast.Constant, ast.List, ast.Tuple),
)
_ALLOWED = (*_NODES, *_OPERATORS, ast.And, ast.Or, ast.Load)


def _evaluator() -> EvalWithCompoundTypes:
    evaluator = EvalWithCompoundTypes(operators=_OPERATORS)
    evaluator.functions = _FUNCTIONS
    nodes = evaluator.nodes or {}  # None after the evaluator has finished
    evaluator.nodes = {node: nodes[node] for node in _NODES}
    return evaluator
