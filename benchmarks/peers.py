"""The peers that replicate: NATS JetStream and RabbitMQ quorum queues, each with its ordinary asyncio client."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.spawning import HOST, Absent, Spawned, beside_python, group, spawn, wait_for, wait_for_port
from benchmarks.systems import REPLICAS, Caller
from benchmarks.traffic import Regions
from distribution_manager.drills.ports import free_ports

# --- NATS JetStream ------------------------------------------------------------------------------------------------

_NATS_CONFIG = """
server_name: bench{number}
listen: {host}:{port}
max_payload: 8MB
jetstream {{ store_dir: "{store}", sync_interval: always }}
cluster {{ name: bench, listen: {host}:{route}, routes: [{routes}] }}
"""


class NatsCaller:
    def __init__(self, context: Any, subject: str, pull: Any) -> None:
        self._context = context
        self._subject = subject
        self._pull = pull

    async def send(self, count: int, body: str) -> None:
        data = body.encode()
        if count == 1:
            await self._context.publish(self._subject, data)
        else:
            await asyncio.gather(*(self._context.publish(self._subject, data) for _ in range(count)))

    async def take(self, count: int) -> int:
        try:
            messages = await self._pull.fetch(count, timeout=1)
        except TimeoutError:
            return 0
        for message in messages:
            await message.ack()
        return len(messages)


class Nats(Spawned):
    name = "NATS R3"
    sends_only = False
    slow = False
    has_fifo = False
    queues_max = 10
    depth_max = 1_000_000
    note = (
        "JetStream work-queue stream, R3, sync_interval always; a batch is ten publishes at once;"
        " its acks are not themselves acknowledged (ours are)"
    )

    async def start(self, folder: Path) -> None:
        program = beside_python("nats-server")
        try:
            import nats  # noqa: PLC0415 - a bench-only dependency
        except ImportError as error:
            raise Absent("nats-py is not installed: make bench installs it") from error
        if program is None:
            raise Absent("nats-server is not installed: make bench installs it")
        self._nats = nats
        self._numbers = itertools.count(1)
        ports = free_ports(2 * REPLICAS)
        clients, routes = ports[:REPLICAS], ports[REPLICAS:]
        for number, (port, route) in enumerate(zip(clients, routes, strict=True)):
            config = folder / f"nats-{number}.conf"
            config.write_text(
                _NATS_CONFIG.format(
                    number=number,
                    host=HOST,
                    port=port,
                    route=route,
                    store=folder / f"nats-{number}",
                    routes=", ".join(f"nats-route://{HOST}:{other}" for other in routes),
                ),
                encoding="utf-8",
            )
            self._processes.append(spawn([program, "-c", str(config)], folder / f"nats-{number}.log"))
        self._url = f"nats://{HOST}:{clients[0]}"
        await wait_for_port(clients[0], self.name)
        await wait_for(self._try, self.name)

    async def _try(self) -> None:
        async with AsyncExitStack() as stack:
            await self.open(stack, 1)

    def regions(self) -> Regions:
        return {str(process.pid): group([process]) for process in self._processes}

    async def open(self, stack: AsyncExitStack, callers: int, queues: int = 1, *, fifo: bool = False) -> list[Caller]:
        assert not fifo
        connection = await self._nats.connect(self._url, max_reconnect_attempts=2)
        stack.push_async_callback(connection.close)
        context = connection.jetstream(timeout=30)
        on_each = [await self._stream(stack, context, -(-callers // queues)) for _ in range(queues)]
        return [caller for turn in zip(*on_each, strict=True) for caller in turn]

    async def _stream(self, stack: AsyncExitStack, context: Any, callers: int) -> list[Caller]:
        name = f"BENCH{next(self._numbers)}"
        config = self._nats.js.api.StreamConfig(
            name=name, subjects=[name], num_replicas=REPLICAS, retention="workqueue", storage="file"
        )
        await context.add_stream(config)
        stack.push_async_callback(context.delete_stream, name)
        consumer = self._nats.js.api.ConsumerConfig(ack_wait=3600, max_ack_pending=100_000)
        pulls = [await context.pull_subscribe(name, durable="taker", config=consumer) for _ in range(callers)]
        return [NatsCaller(context, name, pull) for pull in pulls]


# --- RabbitMQ ------------------------------------------------------------------------------------------------------

_RABBIT_BIN = Path("/usr/lib/rabbitmq/bin")
_RABBIT_CONFIG = """
loopback_users = none
listeners.tcp.default = {host}:{port}
cluster_formation.peer_discovery_backend = classic_config
{nodes}
log.console.level = warning
disk_free_limit.absolute = 50MB
"""


class RabbitCaller:
    def __init__(self, channel: Any, name: str, arrived: asyncio.Queue[Any]) -> None:
        import aio_pika  # noqa: PLC0415 - a bench-only dependency

        self._message = aio_pika.Message
        self._persistent = aio_pika.DeliveryMode.PERSISTENT
        self._exchange = channel.default_exchange
        self._name = name
        self._arrived = arrived

    async def _publish(self, data: bytes) -> None:
        await self._exchange.publish(self._message(data, delivery_mode=self._persistent), routing_key=self._name)

    async def send(self, count: int, body: str) -> None:
        data = body.encode()
        if count == 1:
            await self._publish(data)
        else:
            await asyncio.gather(*(self._publish(data) for _ in range(count)))

    async def take(self, count: int) -> int:
        try:
            messages = [await asyncio.wait_for(self._arrived.get(), 1)]
        except TimeoutError:
            return 0
        while len(messages) < count and not self._arrived.empty():
            messages.append(self._arrived.get_nowait())
        for message in messages:
            await message.ack()
        return len(messages)


class Rabbit(Spawned):
    name = "RabbitMQ quorum"
    sends_only = False
    slow = False
    has_fifo = False
    queues_max = 10
    depth_max = 1_000_000
    note = (
        "quorum queue over three nodes, publisher confirms, persistent; a batch is ten publishes at once; taken by a"
        " consumer with prefetch; its acks are not themselves acknowledged (ours are)"
    )

    async def start(self, folder: Path) -> None:
        try:
            import aio_pika  # noqa: PLC0415 - a bench-only dependency
        except ImportError as error:
            raise Absent("aio-pika is not installed: make bench installs it") from error
        server, epmd = _RABBIT_BIN / "rabbitmq-server", shutil.which("epmd")
        if not server.exists() or epmd is None:
            raise Absent("rabbitmq-server is not installed: apt-get install rabbitmq-server")
        self._connect = aio_pika.connect
        logging.getLogger("aiormq").setLevel(logging.ERROR)  # it warns of each consumer whose queue is deleted
        self._numbers = itertools.count(1)
        home = folder / "rabbit"
        home.mkdir()
        (home / ".erlang.cookie").write_text("benchmark", encoding="ascii")
        (home / ".erlang.cookie").chmod(0o400)
        (home / "plugins").write_text("[].", encoding="ascii")
        names = [f"bench{number}-{os.getpid()}@{socket.gethostname().split('.')[0]}" for number in range(REPLICAS)]
        mapper, *ports = free_ports(1 + 2 * REPLICAS)
        self._processes.append(spawn([epmd, "-port", str(mapper), "-address", HOST], home / "epmd.log"))
        await wait_for_port(mapper, "epmd")
        for number, name in enumerate(names):
            config = home / f"{number}.conf"
            nodes = "\n".join(f"cluster_formation.classic_config.nodes.{i} = {item}" for i, item in enumerate(names, 1))
            config.write_text(_RABBIT_CONFIG.format(host=HOST, port=ports[number], nodes=nodes), encoding="utf-8")
            environment = {
                "HOME": str(home),
                "ERL_EPMD_PORT": str(mapper),
                "RABBITMQ_NODENAME": name,
                "RABBITMQ_NODE_PORT": str(ports[number]),
                "RABBITMQ_DIST_PORT": str(ports[REPLICAS + number]),
                "RABBITMQ_MNESIA_BASE": str(home / "data"),
                "RABBITMQ_LOG_BASE": str(home / "log"),
                "RABBITMQ_PID_FILE": str(home / f"{number}.pid"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
                "RABBITMQ_CONFIG_FILE": str(config),
                # idle schedulers must not spin beside the other systems
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
            }
            self._processes.append(spawn([str(server)], folder / f"rabbit-{number}.log", environment))
        self._ports = ports[:REPLICAS]
        for port in self._ports:
            await wait_for_port(port, self.name)
        await wait_for(self._try, self.name)

    async def _try(self) -> None:
        async with AsyncExitStack() as stack:
            callers = await self.open(stack, 1)
            await callers[0].send(1, "x")

    def regions(self) -> Regions:
        """epmd, the first process, only maps names to ports."""
        return {str(process.pid): group([process]) for process in self._processes[1:]}

    async def open(self, stack: AsyncExitStack, callers: int, queues: int = 1, *, fifo: bool = False) -> list[Caller]:
        assert not fifo
        connection = await self._connect(f"amqp://guest:guest@{HOST}:{self._ports[0]}/")
        stack.push_async_callback(connection.close)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=max(20, 2 * callers))
        arguments = {"x-queue-type": "quorum", "x-quorum-initial-group-size": REPLICAS}
        on_each: list[Caller] = []
        for _ in range(queues):
            queue = await channel.declare_queue(f"bench-{next(self._numbers)}", durable=True, arguments=arguments)
            stack.push_async_callback(queue.delete, if_unused=False, if_empty=False)
            on_each.append(_LazyRabbitCaller(channel, queue, _Consuming(queue)))
        return on_each * -(-callers // queues)


class _Consuming:
    """Consumes from the first ``take`` on, so that sends alone are not received."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._begun = False

    async def begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._queue.consume(self.arrived.put)


class _LazyRabbitCaller(RabbitCaller):
    def __init__(self, channel: Any, queue: Any, consuming: _Consuming) -> None:
        super().__init__(channel, queue.name, consuming.arrived)
        self._consuming = consuming

    async def take(self, count: int) -> int:
        await self._consuming.begin()
        return await super().take(count)
