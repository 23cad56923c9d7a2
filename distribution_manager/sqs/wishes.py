"""What a queue asks of its placement: ShadowQ's own attributes, and the tags that say the same.

Tags are for tools that know only SQS's attributes. Where a call has both, the attribute counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from distribution_manager.core import attributes as meaning
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs import attributes as rules
from distribution_manager.sqs import errors
from distribution_manager.sqs.errors import SqsError, invalid_parameter

TAG_PREFIX = "shadowq:"
"""Of the tags that set attributes, and of no others."""


def attributes_in(tags: Mapping[str, str]) -> dict[str, str]:
    """The attributes that a queue's tags set; "" for those that they take away. Raises SqsError, naming the tag.

    A tag that only looks like ours is refused: it would be taken for a wish, and do nothing.
    """
    for tag in tags:
        if tag.startswith(TAG_PREFIX) and tag not in meaning.TAGS:
            raise invalid_parameter(f"There is no tag {tag}; there are {', '.join(meaning.TAGS)}.")
    found: dict[str, str] = {}
    for tag, name in meaning.TAGS.items():
        if tag in tags:
            try:
                found |= rules.checked({name: tags[tag]}, fifo=False)
            except SqsError as error:
                raise invalid_parameter(f"Invalid value for the tag {tag}: {error}") from error
    return found


def attributes_without(tags: Collection[str]) -> dict[str, str | None]:
    """What ends when these tags are taken away: all that they stand for, but for the number of shadows."""
    return {meaning.TAGS[tag]: None for tag in tags if tag in meaning.TAGS and tag != meaning.SHADOW_FACTOR_TAG}


def check_wishes(attributes: Mapping[str, str | None], shadow_factor: int, known: Collection[str]) -> None:
    """Whether all that the queue will have can be had. ``known``: the regions with nodes; none: not known yet.

    A region that is not there is taken for a slip: nodes join first, queues ask for them then. Raises SqsError.
    """
    allowed = meaning.region_names(attributes.get(meaning.ALLOWED_REGIONS) or "")
    preferred = attributes.get(meaning.PREFERRED_PRIMARY_REGION) or ""
    for name, regions in ((meaning.ALLOWED_REGIONS, allowed), (meaning.PREFERRED_PRIMARY_REGION, [preferred])):
        missing = [region for region in regions if region and known and region not in known]
        if missing:
            there = ", ".join(sorted(known))
            raise _invalid(name, f"No node is in {', '.join(missing)}; there are nodes in {there}.")
    if allowed and preferred and preferred not in allowed:
        raise _invalid(
            meaning.PREFERRED_PRIMARY_REGION,
            f"{preferred} is not among {meaning.ALLOWED_REGIONS}: {', '.join(allowed)}.",
        )
    if allowed and len(allowed) < 1 + shadow_factor:
        raise _invalid(
            meaning.ALLOWED_REGIONS,
            f"{meaning.SHADOW_FACTOR} {shadow_factor} needs {1 + shadow_factor} regions, and {len(allowed)} are named.",
        )


def check_changed_wishes(queue: QueueMetadata, changes: Mapping[str, str | None], known: Collection[str]) -> None:
    """``changes`` to a queue that is there. Raises SqsError.

    More shadows than there are regions are refused, though a queue may be kept waiting for them when it is made: this
    one works, and whoever changes it would believe that it has what it asks for.
    """
    factor = changes.get(meaning.SHADOW_FACTOR)
    count = 1 + (queue.shadow_factor if factor is None else int(factor))
    check_wishes({**queue.attributes, **changes}, count - 1, known)
    if factor is not None and known and count > max(len(known), 1 + queue.shadow_factor):
        there = ", ".join(sorted(known))
        raise _invalid(
            meaning.SHADOW_FACTOR, f"{factor} shadows need nodes in {count} regions; there are {len(known)}: {there}."
        )


def _invalid(name: str, reason: str) -> SqsError:
    return SqsError(errors.INVALID_ATTRIBUTE_VALUE, f"Invalid value for the parameter {name}. Reason: {reason}")
