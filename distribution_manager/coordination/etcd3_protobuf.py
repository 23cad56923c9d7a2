"""Makes the ``etcd3`` package import with protobuf 4 and later; import ``etcd3`` and ``etcdrpc`` from here only.

Why: the ``_pb2`` modules that etcd3 0.12.0 ships were generated for protobuf 3. They build every descriptor by hand,
which protobuf 4 refuses ("Descriptors cannot be created directly"). Each of them also carries its whole schema in
serialized form, and that is still readable: it is taken out of the source (never executed), loaded into a
DescriptorPool, and modules with the same names and contents are put in place before etcd3 imports them.
Invariant: the pool is private. The files are called ``kv.proto``, ``auth.proto`` and ``rpc.proto``; in the default pool
they would collide with those of any other package with names so plain.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

MODULES = ("kv", "auth", "rpc")
"""In the order of their dependencies."""


def _serialized_schema(source: Path) -> bytes:
    """The literal in ``serialized_pb=_b('...')``, where ``_b`` encodes as latin-1."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb" and isinstance(node.value, ast.Call):
            return str(ast.literal_eval(node.value.args[0])).encode("latin-1")
    raise ImportError(f"{source} holds no serialized_pb: this is not the etcd3 0.12 that this file was written for")


def _module(name: str, schema: bytes, pool: descriptor_pool.DescriptorPool) -> ModuleType:
    file: Any = pool.AddSerializedFile(schema)
    module = ModuleType(name)
    module.__dict__["DESCRIPTOR"] = file
    for message in file.message_types_by_name.values():
        module.__dict__[message.name] = message_factory.GetMessageClass(message)
    for enum in file.enum_types_by_name.values():
        module.__dict__[enum.name] = enum_type_wrapper.EnumTypeWrapper(enum)
        module.__dict__.update((value.name, value.number) for value in enum.values)
    return module


def _prepare() -> None:
    if "etcd3" in sys.modules:
        return
    spec = importlib.util.find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise ImportError("the etcd3 package is not installed: pip install etcd3==0.12.0")
    pool = descriptor_pool.DescriptorPool()
    for part in MODULES:
        name = f"etcd3.etcdrpc.{part}_pb2"
        source = Path(spec.origin).parent / "etcdrpc" / f"{part}_pb2.py"
        sys.modules[name] = _module(name, _serialized_schema(source), pool)


_prepare()

import etcd3  # noqa: E402
from etcd3 import etcdrpc  # noqa: E402

__all__ = ["etcd3", "etcdrpc"]
