"""Errors say what happened to the operation: rejected (not applied), outcome unknown (retry inside), or corrupt."""

from __future__ import annotations


class ShadowQError(Exception):
    """Base of every error that ShadowQ raises on purpose."""


class RejectedError(ShadowQError):
    """The operation was not applied and will not be."""


class NoRoomError(RejectedError):
    """The disk is full: nothing of the write has happened, and it may be tried again."""


class OutcomeUnknownError(ShadowQError):
    """The operation may or may not have been applied; repeat it under the same operation id."""


class CorruptError(ShadowQError):
    """Stored or received bytes are not what was written. Nothing may be served from them."""


class ProtocolError(ShadowQError):
    """The peer sent something that the protocol does not allow."""
