"""Filters of a search, in the form of Chroma, Pinecone and LangChain: `{"modality": "image", "year": {"$gte": 2020}}`.

A filter is parsed into conditions, which are evaluated on the table of a segment or translated for an external engine.
A comparison with a missing value, or with a value of another type, is false; `$ne` and `$nin` are the opposites of
`$eq` and `$in`, so that documents without the field match them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval.segment import METADATA
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

Filter = Mapping[str, Any]
Scalar = str | bool | int | float

COMPARISONS = {"$gt": "greater", "$gte": "greater_equal", "$lt": "less", "$lte": "less_equal"}
OPERATORS = ("$eq", "$ne", *COMPARISONS, "$in", "$nin", "$exists")
GROUPS = ("$and", "$or", "$not")
OWN_FIELDS = {"id": "id", "kind": "kind", "modality": "kind", "text": "text"}
"""Fields of every document; `modality` is another name of `kind`."""


@dataclass(frozen=True)
class Comparison:
    """A condition on one field: `$in` with a tuple of values, `$gt`, `$gte`, `$lt`, `$lte` with one, or `$exists`."""

    field: str
    operator: str
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Group:
    """Conditions joined by `$and` or `$or`, or one condition negated by `$not`."""

    operator: str
    parts: tuple[Condition, ...]


Condition = Comparison | Group


def parse_filter(filter: Filter | None) -> Condition | None:  # noqa: A002
    """Parse a filter.

    Args:
        filter: Conditions by field, of which all must hold: a value, a dict of operators (`$eq`, `$ne`, `$gt`, `$gte`,
            `$lt`, `$lte`, `$in`, `$nin`, `$exists`), or under `$and` and `$or` a list of filters, under `$not` one.

    Returns:
        The condition; `None` for an empty filter.

    Raises:
        TypeError: If the filter or a value has an invalid type.
        ValueError: If an operator is unknown.
    """
    if filter is None:
        return None
    if not isinstance(filter, Mapping):
        raise TypeError(f"`filter` must be a dict of conditions by field; got {type(filter).__name__}")
    parts: list[Condition] = []
    for field, condition in filter.items():
        if field in GROUPS:
            parts.append(_group(field, condition))
        elif not isinstance(field, str) or field.startswith("$"):
            raise ValueError(f"`filter`: a key must be a field or one of {', '.join(GROUPS)}; got {field!r}")
        elif isinstance(condition, Mapping):
            if not condition:
                raise ValueError(f"`filter`: the condition on {field!r} is empty")
            parts += [_comparison(field, operator, value) for operator, value in condition.items()]
        else:
            parts.append(_comparison(field, "$eq", condition))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else Group("$and", tuple(parts))


def parse_where(conditions: Sequence[str]) -> Filter:
    """Parse conditions of the command line: `key=value`, or with `!=`, `>`, `>=`, `<`, `<=`.

    Raises:
        ValueError: If one of them has another form.
    """
    operators = {"=": "$in", "!=": "$nin", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
    parts: list[Filter] = []
    for text in conditions:
        match = re.fullmatch(r"([^=<>!]+)(!=|>=|<=|=|>|<)(.*)", text, flags=re.DOTALL)
        if match is None:
            raise ValueError(f"--where must be key=value, or with !=, >, >=, <, <=; got {text!r}")
        key, operator, value = match[1].strip(), operators[match[2]], match[3].strip()
        typed = _number_or_text(value)
        either = [typed] if typed == value else [typed, value]  # a column of texts may hold "2020"
        parts.append({key: {operator: either if operator in ("$in", "$nin") else typed}})
    return {"$and": parts} if parts else {}


def fields_of(condition: Condition) -> set[str]:
    """Return the fields that a condition compares."""
    if isinstance(condition, Comparison):
        return {condition.field}
    return {field for part in condition.parts for field in fields_of(part)}


def check_fields(condition: Condition, known: set[str]) -> None:
    """Check that the fields of a condition exist.

    Raises:
        ValueError: If a field occurs in no document, as after a typing error.
    """
    unknown = sorted(fields_of(condition) - known - OWN_FIELDS.keys())
    if unknown:
        valid = ", ".join(sorted(known | OWN_FIELDS.keys()))
        raise ValueError(f"`filter`: the field {unknown[0]!r} is not in the index; its fields are {valid}")


def matches(condition: Condition, table: pa.Table) -> NDArray[np.bool_]:
    """Evaluate a condition on the table of a segment: (documents,) bool."""
    if isinstance(condition, Comparison):
        return _compare(condition, table)
    found = [matches(part, table) for part in condition.parts]
    if condition.operator == "$not":
        return ~found[0]
    join = np.logical_and if condition.operator == "$and" else np.logical_or
    result: NDArray[np.bool_] = join.reduce(found)
    return result


def value_kind(value: Any) -> str:
    """Return the kind of a value for comparisons: `"bool"`, `"number"` or `"text"`."""
    if isinstance(value, bool):
        return "bool"
    return "text" if isinstance(value, str) else "number"


def _group(operator: str, parts: Any) -> Condition:
    if operator == "$not":
        parts = [parts]
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise TypeError(f"`filter`: {operator} must have a list of filters; got {parts!r}")
    parsed = [parse_filter(part) for part in parts]
    if any(part is None for part in parsed):
        raise ValueError(f"`filter`: {operator} contains an empty filter")
    return Group(operator, tuple(part for part in parsed if part is not None))


def _comparison(field: str, operator: str, value: Any) -> Condition:
    if operator not in OPERATORS:
        raise ValueError(f"`filter`: the operator must be one of {', '.join(OPERATORS)}; got {operator!r}")
    if operator in ("$ne", "$nin"):
        return Group("$not", (_comparison(field, "$eq" if operator == "$ne" else "$in", value),))
    if operator == "$exists":
        if not isinstance(value, bool):
            raise TypeError(f"`filter`: $exists must be true or false; got {value!r}")
        exists = Comparison(field, "$exists")
        return exists if value else Group("$not", (exists,))
    if operator == "$eq" and value is None:
        return Group("$not", (Comparison(field, "$exists"),))
    if operator in ("$eq", "$in"):
        if operator == "$in" and (isinstance(value, str) or not isinstance(value, Sequence)):
            raise TypeError(f"`filter`: $in and $nin must have a list of values; got {value!r}")
        values = list(value) if operator == "$in" else [value]
        return Comparison(field, "$in", tuple(_scalar(field, item) for item in values))
    if isinstance(value, bool):
        raise TypeError(f"`filter`: {operator} compares numbers or texts; got {value!r} for {field!r}")
    return Comparison(field, operator, (_scalar(field, value),))


def _scalar(field: str, value: Any) -> Scalar:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`filter`: the value for {field!r} must be finite; got {value!r}")
    if isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"`filter`: the value for {field!r} must be a text, a number or a bool; got {value!r}")


def _number_or_text(value: str) -> Scalar:
    try:
        found = json.loads(value)
    except ValueError:
        return value
    is_scalar = isinstance(found, bool | int | float) and math.isfinite(found)
    return found if is_scalar else value


def _compare(condition: Comparison, table: pa.Table) -> NDArray[np.bool_]:
    compute, arrow = (import_optional(name, extra="search") for name in ("pyarrow.compute", "pyarrow"))
    name = OWN_FIELDS.get(condition.field, METADATA + condition.field)
    if name not in table.column_names:
        return np.zeros(len(table), dtype=bool)
    column = table[name]
    if condition.operator == "$exists":
        return _mask(compute.is_valid(column))
    kind = _column_kind(arrow.types, column.type)
    if kind is None:
        raise ValueError(
            f"`filter`: the field {condition.field!r} is {column.type}; only texts, numbers and bools compare"
        )
    values = [value for value in condition.values if value_kind(value) == kind]
    found = np.zeros(len(table), dtype=bool)
    if condition.operator != "$in":
        for value in values:
            found |= _mask(getattr(compute, COMPARISONS[condition.operator])(column, arrow.scalar(value)))
    elif len(values) > 8 and kind == "text":
        found = _mask(compute.is_in(column, value_set=arrow.array(values, column.type)))
    else:
        for value in values:
            found |= _mask(compute.equal(column, arrow.scalar(value)))
    return found


def _mask(values: Any) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = values.fill_null(False).to_numpy(zero_copy_only=False) if hasattr(
        values, "fill_null") else np.asarray(values)  # fmt: skip
    return mask.astype(bool, copy=False)


def _column_kind(types: Any, kind: Any) -> str | None:
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind) or types.is_floating(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return "null" if types.is_null(kind) else None
