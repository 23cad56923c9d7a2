"""IAM's wildcards: ``*`` stands for any characters, ``?`` for one. Matching takes time linear in text times stars."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

Matcher = Callable[[str], bool]


@lru_cache(maxsize=4096)
def matcher(pattern: str, *, ignore_case: bool = False) -> Matcher:
    """Whether a whole text is of the pattern."""
    if ignore_case:
        folded = matcher(pattern.lower())
        return lambda text: folded(text.lower())
    if not pattern.strip("*") and pattern:
        return lambda text: True
    if not _has_wildcard(pattern):
        return pattern.__eq__
    first, *others = (_fixed(part) for part in re.split(r"\*+", pattern))
    if not others:
        expression = first
    else:
        # each middle part is taken where it comes first and never given back: no other choice could match more
        middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
        expression = f"{first}{middle}.*{others[-1]}"
    fullmatch = re.compile(expression, re.DOTALL).fullmatch
    return lambda text: fullmatch(text) is not None


def any_matcher(patterns: Iterable[str], *, ignore_case: bool = False) -> Matcher:
    matchers = [matcher(pattern, ignore_case=ignore_case) for pattern in patterns]
    return lambda text: any(matches(text) for matches in matchers)


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _fixed(part: str) -> str:
    return "".join("." if character == "?" else re.escape(character) for character in part)
