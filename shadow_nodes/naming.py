"""The name of a node, which stays with its data: DATA/name."""

from __future__ import annotations

import secrets
from dataclasses import replace

from shadow_nodes.config import NAME_PATTERN, ConfigError, NodeSettings
from shadow_nodes.storage.directory import write_durably

NAME_FILE = "name"
SUFFIX_BYTES = 3
REGION_CHARACTERS = 48
"""Of the region in a new name: a name has 63 characters at most."""


def settle_name(settings: NodeSettings) -> NodeSettings:
    """The settings with the name that the data has; new data gets the name given, else one made from the region.

    Raises ConfigError where the data is another node's.
    """
    path = settings.data / NAME_FILE
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            name = settings.node or f"node-{settings.region[:REGION_CHARACTERS]}-{secrets.token_hex(SUFFIX_BYTES)}"
            write_durably(path, f"{name}\n".encode())
        stored = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"data: cannot use {path}: {error}; check the directory's disk and permissions") from error
    if not NAME_PATTERN.fullmatch(stored):
        raise ConfigError(f"data: {path} holds no name of a node: put this node's name there")
    if settings.node not in ("", stored):
        raise ConfigError(
            f"node: {settings.data} is the data of node {stored}, not of {settings.node}: "
            "give another --data, or leave --node out"
        )
    return replace(settings, node=stored)
