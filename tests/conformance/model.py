"""botocore's model of SQS: its operations, members, enumerations and errors, and what answers may look like."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import botocore
import pytest

MODEL: dict[str, Any] = json.loads(
    gzip.decompress((Path(botocore.__file__).parent / "data/sqs/2012-11-05/service-2.json.gz").read_bytes())
)
SHAPES: dict[str, Any] = MODEL["shapes"]
OPERATIONS: dict[str, Any] = MODEL["operations"]

RESERVED = frozenset({"StringListValues", "BinaryListValues"})
"""The model: "Not implemented. Reserved for future use." """
OMITTED = frozenset({"Failed", "Successful"})
"""The model requires them, SQS leaves them out where they are empty: https://github.com/aws/aws-sdk/issues/657"""

_TYPES = {"string": str, "integer": int, "long": int, "boolean": bool, "blob": str}


def method_name(operation: str) -> str:
    """What boto3 calls it."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation).lstrip("_")


def named(cases: Iterable[tuple[str, str]]) -> list[Any]:
    """Cases of a parametrised test, each with its parts as its name."""
    return [pytest.param(*case, id="-".join(case)) for case in cases]


def input_shape(operation: str) -> str:
    return str(OPERATIONS[operation]["input"]["shape"])


def input_members(operation: str) -> dict[str, str]:
    """Member -> shape."""
    return {name: member["shape"] for name, member in SHAPES[input_shape(operation)]["members"].items()}


def errors_of(operation: str) -> list[str]:
    return [error["shape"] for error in OPERATIONS[operation].get("errors", [])]


def enumeration(shape: str) -> list[str]:
    return list(SHAPES[shape]["enum"])


def member_paths(shape: str, prefix: str = "") -> set[str]:
    """Every member that a structure can have, nested ones as Entries.MessageAttributes.DataType."""
    described = SHAPES[shape]
    match described["type"]:
        case "structure":
            found = set()
            for name, member in described["members"].items():
                if name not in RESERVED:
                    path = f"{prefix}.{name}" if prefix else name
                    found |= {path} | member_paths(member["shape"], path)
            return found
        case "list":
            return member_paths(described["member"]["shape"], prefix)
        case "map":
            return member_paths(described["value"]["shape"], prefix)
        case _:
            return set()


def used_paths(shape: str, value: Any, prefix: str = "") -> set[str]:
    """Those of ``member_paths`` that ``value`` has."""
    described = SHAPES[shape]
    match described["type"]:
        case "structure":
            found = set()
            for name, held in value.items():
                path = f"{prefix}.{name}" if prefix else name
                found |= {path} | used_paths(described["members"][name]["shape"], held, path)
            return found
        case "list":
            return set().union(*(used_paths(described["member"]["shape"], held, prefix) for held in value))
        case "map":
            return set().union(*(used_paths(described["value"]["shape"], held, prefix) for held in value.values()))
        case _:
            return set()


def check_answer(shape: str, value: Any, path: str = "") -> None:
    """A JSON answer has what the model requires, nothing that the model does not know, and all of the right type."""
    described = SHAPES[shape]
    match described["type"]:
        case "structure":
            assert isinstance(value, dict), path
            missing = set(described.get("required", ())) - value.keys() - OMITTED
            assert not missing, f"{path or shape} lacks {missing}"
            for name, held in value.items():
                assert name in described["members"], f"{path or shape} has {name}, which the model does not know"
                check_answer(described["members"][name]["shape"], held, f"{path}.{name}")
        case "list":
            assert isinstance(value, list), path
            for held in value:
                check_answer(described["member"]["shape"], held, path)
        case "map":
            assert isinstance(value, dict), path
            for key, held in value.items():
                check_answer(described["key"]["shape"], key, path)
                check_answer(described["value"]["shape"], held, f"{path}.{key}")
        case kind:
            assert type(value) is _TYPES[kind], f"{path} is {value!r}, not a {kind}"
