"""All that a seed decides before its run begins: the cluster, its bounds, the load, and the schedule of faults.

Model: a ``Plan`` is plain data, a function of seed and profile; a shrunk run is the same plan with fewer faults.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from tests.simulation.loop import MS, SECOND

NODE_KINDS = ("node_crash", "node_pause", "node_corrupt", "node_slow_disk")
MANAGER_KINDS = ("manager_crash", "manager_pause")
NETWORK_KINDS = ("partition", "one_way", "isolate", "slow_link", "resets", "stall", "manager_links", "owner_cut")
ETCD_KINDS = ("etcd_restore", "etcd_down", "etcd_slow", "etcd_loss", "etcd_cut", "lease_end", "watch_gap", "compact")
DISK_KINDS = ("node_full", "all_full", "node_crash", "node_slow_disk", "manager_crash", "resets")
CLOCK_KINDS = ("clock_jump",)
PLANNED_KINDS = ("handoff", "manager_promote")
LOAD_KINDS = ("drain", "busy")
"""Operators' drains, and load that promotes: no fault, and no operation may fail for them."""
RESTORE_KINDS = ("etcd_restore", "etcd_restore", "etcd_down", "watch_gap", "manager_crash", "node_crash", "owner_cut")
"""Replica sets change (HEALING_KINDS), and etcd is restored to before that."""
HEALING_KINDS = ("node_gone", "factor")
"""Drawn by a generator of their own, so that what the others are for a seed does not depend on them."""
DAMAGE_KINDS = ("node_damage", "read_operations")
"""So are these."""
SINGLE_KINDS = (
    "node_down",
    "node_pause",
    "manager_crash",
    "manager_pause",
    "isolate_node",
    "isolate_manager",
    *PLANNED_KINDS,
)
SINGLE_HEALING_SHARE = 0.3
"""Of the faults that come one at a time, this many are of HEALING_KINDS."""
CALM_PROFILES = frozenset({"none", "single", "moves"})
"""No operation may fail, but those at a manager that was hit."""
LOAD_PROFILES = frozenset({"all", "moves"})
AIMED_KINDS: dict[str, tuple[str, ...]] = {
    "tails": ("minority",),
    "deserters": ("deserter",),
    "relearn": ("late_retire", "slow_retire", "wavering"),
    "room": ("all_full", "handoff", "manager_promote", "manager_crash", "resets"),
    "locks": ("etcd_loss", "etcd_slow", "etcd_cut", "manager_crash", "owner_cut", "handoff"),
    "restored": ("etcd_restore", "manager_crash", "owner_cut", "handoff"),
}
"""Profiles that aim at one coincidence: see rare_faults.py, and ``_aim`` for what else is drawn otherwise."""
SINGLE_EVERY_US = 20 * SECOND
ALL_KINDS = (
    "node_full",
    "all_full",
    *NODE_KINDS,
    *MANAGER_KINDS,
    *NETWORK_KINDS,
    *ETCD_KINDS,
    *CLOCK_KINDS,
    *PLANNED_KINDS,
)


class Fault(msgspec.Struct, frozen=True):
    """``pick``: a random number by which the fault chooses its victims when it happens."""

    at_us: int
    kind: str
    lasts_us: int
    pick: int


class Plan(msgspec.Struct):
    seed: int
    regions: list[str]
    nodes: dict[str, str]
    """Region by node."""
    managers: dict[str, str]
    latency_us: dict[str, dict[str, int]]
    jitter: float
    hiccups: float
    codec: bool
    turn_us: int
    fsync_us: int
    etcd_us: int
    lease_ms: int
    log_retained_bytes: int
    chunk_bytes: int
    chunk_us: int
    """Copying a snapshot takes up to so long for each chunk."""
    bounds: dict[str, int]
    """Bounds of the cores that are drawn anew: see bounds.py."""
    queues: list[dict[str, Any]]
    clients: int
    think_us: int
    weights: dict[str, int]
    load_us: int
    """How long clients work and faults happen."""
    skew_ms: int
    drift: float
    faults: list[Fault]
    timeouts_us: tuple[int, ...] = (3 * SECOND, 25 * SECOND, 25 * SECOND)
    """How long clients wait for an answer."""
    promises_success: bool = False
    """Faults come one at a time, and each takes a minority or one manager: no operation may fail (P6)."""
    heal_after_ms: int = 0
    quick_promotion: bool = False
    """Primaries move for load, clients and failback within seconds: see promotion.py."""
    message_rate: int = 0
    """The threshold of all queues."""


def make_plan(seed: int, profile: str = "all") -> Plan:
    random = Random(f"plan {seed} {profile}")
    count = random.choice((3, 3, 3, 4, 5, 5, 6, 7))
    regions = [f"r{number}" for number in range(count)]
    nodes = {f"n{region[1:]}": region for region in regions}
    managers = {}
    for region in regions[: random.randint(2, min(count, 4))]:
        for twin in range(random.choice((1, 1, 1, 2))):
            managers[f"m{region[1:]}{'ab'[twin]}"] = region
    load_us = random.randint(12, 30) * SECOND
    queues, weights, faults = _queues(random, count), _weights(random), _faults(random, load_us, profile)
    healing = Random(f"healing {seed} {profile}")
    faults = sorted([*faults, *_healing_faults(healing, load_us, profile)], key=_order)
    moving = Random(f"moving {seed} {profile}")
    faults = sorted([*faults, *_load_faults(moving, load_us, profile)], key=_order)
    damaging = Random(f"damage {seed} {profile}")
    faults = sorted([*faults, *_damage_faults(damaging, load_us, profile)], key=_order)
    quick = profile in LOAD_PROFILES and moving.random() < 0.7
    if quick and moving.random() < 0.5:
        for queue in queues:
            wish = {"PreferredPrimaryRegion": moving.choice(regions), "Failback": "true"}
            queue["attributes"] |= wish if moving.random() < 0.5 else {}
    if any(fault.kind in {"node_corrupt", "node_damage", "node_gone", "etcd_restore", "deserter"} for fault in faults):
        # a queue might be made on a store that is lost already, though nobody knows it yet; or be lost with etcd
        weights["recreate"] = 0
    skew_ms = random.choice((0, 0, 0, 200, 3_000)) if profile not in CALM_PROFILES else 0
    calm = profile in CALM_PROFILES
    if profile == "single":
        load_us = SINGLE_EVERY_US * 3
        faults = _single_faults(random, healing, load_us)
        queues = [{**queue, "factor": max(2, queue["factor"])} for queue in queues]
        weights["recreate"] = 0
    plan = Plan(
        seed=seed,
        promises_success=calm,
        timeouts_us=(25 * SECOND,) if calm else (3 * SECOND, 25 * SECOND, 25 * SECOND),
        regions=regions,
        nodes=nodes,
        managers=managers,
        latency_us=_latencies(random, regions),
        jitter=random.choice((0.0, 0.2, 1.0)),
        hiccups=random.choice((0.0, 0.0, 0.01)),
        codec=random.random() < 0.3,
        turn_us=random.choice((10, 50, 300, 2_000)),
        fsync_us=random.choice((50, 500, 2_000, 10_000)),
        etcd_us=random.choice((1_000, 5_000, 30_000)),
        lease_ms=random.choice((3_000, 5_000, 10_000)),
        log_retained_bytes=random.choice((300, 3_000, 1 << 26)),
        chunk_bytes=random.choice((100, 2_000, 262_144)),
        chunk_us=20 * MS,
        bounds={
            **_bounds(random),
            "learner_patience_ms": healing.choice((1_000, 3_000)),
            "learners": healing.choice((1, 4)),
        },
        queues=queues,
        clients=random.randint(3, 7),
        think_us=1_500 * MS if profile == "quiet" else random.choice((50, 150, 400)) * MS,
        weights=weights,
        load_us=load_us,
        skew_ms=skew_ms,
        drift=random.choice((0.0, 0.0, 0.001)) if profile not in CALM_PROFILES else 0.0,
        faults=faults,
        quick_promotion=quick,
        message_rate=moving.choice((0, 2, 10)) if quick else 0,
        heal_after_ms=healing.choice((0, 1_500, 4_000) if profile in {"all", "single"} else (1_500, 4_000)),
    )
    return _aim(plan, profile, random) if profile in AIMED_KINDS else plan


def _aim(plan: Plan, profile: str, random: Random) -> Plan:
    """Much load, or queues that are mostly empty; logs that are kept shortly, sent an entry at a time; room to grow."""
    small = {
        "tails": {
            "append_bytes": 1,
            "window_bytes": random.choice((500, 3_000)),
            "checkpoint_rows": random.choice((5, 40)),
        },
        "relearn": {"entries_under_way": random.choice((2, 256)), "checkpoint_rows": 5},
    }
    slow_copy = profile == "relearn" and random.random() < 0.5
    largest = len(plan.regions) - random.choice((1, 1, 2))
    idle = {"send": 2, "receive": 12, "delete": 8} if profile == "deserters" and random.random() < 0.7 else {}
    return msgspec.structs.replace(
        plan,
        bounds=plan.bounds | small.get(profile, {}),
        log_retained_bytes=random.choice((300, 3_000)) if profile in small else plan.log_retained_bytes,
        chunk_bytes=100 if slow_copy else plan.chunk_bytes,
        chunk_us=100 * MS if slow_copy else plan.chunk_us,
        queues=[
            {**queue, "factor": min(3, largest) if profile == "relearn" else max(2, queue["factor"])}
            for queue in plan.queues
        ],
        clients=7,
        think_us=50 * MS,
        weights={**plan.weights, "recreate": 0, "purge": 0, **idle},
        heal_after_ms=0 if profile == "deserters" else plan.heal_after_ms,
    )


def _latencies(random: Random, regions: list[str]) -> dict[str, dict[str, int]]:
    """One way, in microseconds; symmetric, more or less as places on a map."""
    scale = random.choice((1_000, 10_000, 60_000))
    places = {region: (random.random(), random.random()) for region in regions}

    def way(one: str, other: str) -> int:
        (x1, y1), (x2, y2) = places[one], places[other]
        return 100 + int(scale * ((x1 - x2) ** 2 + (y1 - y2) ** 2) ** 0.5)

    return {one: {other: way(one, other) for other in regions} for one in regions}


def _bounds(random: Random) -> dict[str, int]:
    if random.random() < 0.25:
        return {}
    return {
        "checkpoint_rows": random.choice((5, 10, 40, 2_000)),
        "window_bytes": random.choice((500, 3_000, 1 << 25)),
        "append_bytes": random.choice((1, 500, 4_000, 1 << 22)),
        "fetch_entries": random.choice((5, 50, 2_000)),
        "expire_per_entry": random.choice((2, 20, 1_000)),
        "window_ms": random.choice((3_000, 10_000, 300_000)),
        "content_bytes": random.choice((10, 1 << 28)),
    }


def _queues(random: Random, regions: int) -> list[dict[str, Any]]:
    factors = [factor for factor in (1, 2, 2, 2, 4, 6) if factor < regions]
    queues: list[dict[str, Any]] = []
    for name in random.choice((("s0",), ("f0.fifo",), ("s0", "f0.fifo"), ("s0", "f0.fifo"))):
        fifo = name.endswith(".fifo")
        queue: dict[str, Any] = {"name": name, "factor": random.choice(factors), "attributes": {}}
        if fifo:
            queue["attributes"]["FifoQueue"] = "true"
        elif random.random() < 0.15:
            queue["attributes"]["DelaySeconds"] = "1"
        elif random.random() < 0.4:
            queue["attributes"]["MessageRetentionPeriod"] = random.choice(("2", "5", "12"))
        if "MessageRetentionPeriod" not in queue["attributes"] and random.random() < 0.5:
            target = f"d{name}"
            arn = f"arn:aws:sqs:us-east-1:000000000000:{target}"
            queue["attributes"]["RedrivePolicy"] = (
                f'{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{random.randint(1, 3)}}}'
            )
            queues.append(
                {
                    "name": target,
                    "factor": random.choice(factors),
                    "attributes": {"FifoQueue": "true"} if fifo else {},
                }
            )
        queues.append(queue)
    return queues


def _weights(random: Random) -> dict[str, int]:
    return {
        "send": random.randint(3, 8),
        "receive": random.randint(4, 10),
        "delete": random.randint(2, 8),
        "change": random.randint(0, 2),
        "purge": random.choice((0, 0, 0, 1)),
        "configure": random.choice((0, 0, 1)),
        "recreate": random.choice((0, 0, 0, 1)),
    }


def _single_faults(random: Random, healing: Random, load_us: int) -> list[Fault]:
    """One after the other, with time to recover in between."""
    faults = [
        Fault(at_us, random.choice(SINGLE_KINDS), int(random.uniform(0.5, 7) * SECOND), random.getrandbits(32))
        for at_us in range(3 * SECOND, load_us, SINGLE_EVERY_US)
    ]
    return [
        msgspec.structs.replace(fault, kind=healing.choice(HEALING_KINDS))
        if healing.random() < SINGLE_HEALING_SHARE
        else fault
        for fault in faults
    ]


def _healing_faults(random: Random, load_us: int, profile: str) -> list[Fault]:
    faults: list[Fault] = []
    for kind in HEALING_KINDS if profile in {"all", "healing", "restores"} else ():
        if random.random() < (0.35 if profile == "all" else 0.9):
            mean_us = random.choice((3, 8)) * SECOND
            at_us = random.expovariate(1 / mean_us)
            while at_us < load_us:
                lasts_us = int(random.choice((random.uniform(0.4, 3), random.uniform(3, 12))) * SECOND)
                faults.append(Fault(int(at_us), kind, lasts_us, random.getrandbits(32)))
                at_us += random.expovariate(1 / mean_us)
    return faults


def _load_faults(random: Random, load_us: int, profile: str) -> list[Fault]:
    faults: list[Fault] = []
    for kind in LOAD_KINDS if profile in LOAD_PROFILES else ():
        if random.random() < (0.35 if profile == "all" else 0.9):
            mean_us = random.choice((2, 5)) * SECOND
            at_us = random.expovariate(1 / mean_us)
            while at_us < load_us:
                lasts_us = int(random.uniform(0.5, 8) * SECOND)
                faults.append(Fault(int(at_us), kind, lasts_us, random.getrandbits(32)))
                at_us += random.expovariate(1 / mean_us)
    return faults


def _damage_faults(random: Random, load_us: int, profile: str) -> list[Fault]:
    faults: list[Fault] = []
    if random.random() < {"all": 0.3, "nodes": 0.5, "damage": 1}.get(profile, 0):
        for kind in DAMAGE_KINDS:
            at_us = random.expovariate(1 / (2 * SECOND))
            while at_us < load_us:
                faults.append(Fault(int(at_us), kind, 0, random.getrandbits(32)))
                at_us += random.expovariate(1 / (2 * SECOND))
    return faults


def _order(fault: Fault) -> tuple[int, str, int]:
    return (fault.at_us, fault.kind, fault.pick)


def _faults(random: Random, load_us: int, profile: str) -> list[Fault]:
    kinds = {
        "none": (),
        "single": (),
        "quiet": ("owner_cut",),
        "all": ALL_KINDS,
        "nodes": NODE_KINDS,
        "managers": MANAGER_KINDS,
        "network": NETWORK_KINDS,
        "etcd": ETCD_KINDS,
        "clocks": CLOCK_KINDS,
        "disks": DISK_KINDS,
        "planned": PLANNED_KINDS,
        "moves": PLANNED_KINDS,
        "healing": (*PLANNED_KINDS, "node_crash", "manager_crash", "owner_cut"),
        "restores": RESTORE_KINDS,
        "damage": ("node_crash", "manager_crash", "handoff", "isolate"),
        **AIMED_KINDS,
    }[profile]
    aimed = profile in AIMED_KINDS
    faults: list[Fault] = []
    for kind in kinds:
        if random.random() < (0.45 if profile == "all" else 0.9) or aimed:
            mean_us = random.choice((1.5, 4) if aimed else (1.5, 4, 10)) * SECOND
            at_us = random.expovariate(1 / mean_us)
            while at_us < load_us:
                lasts_us = random.choice((random.uniform(0.01, 0.4), random.uniform(0.4, 3), random.uniform(3, 9)))
                faults.append(Fault(int(at_us), kind, int(lasts_us * SECOND), random.getrandbits(32)))
                at_us += random.expovariate(1 / mean_us)
    return sorted(faults, key=_order)
