"""Faust's part: the consumer group, which partition is whose, and the messages in them. The only module that knows Faust.

Faust is used for what it does well. Its acknowledgements are not: they can pass a message that was never finished (an agent that
raises, the first messages of a group without a committed offset), so the topic is read without them and offsets are committed here,
when ``Worker`` says so. Its stop can wait for ever on messages that were fetched before a rebalance, so it is given a time.
"""

import asyncio
import os
import signal
import ssl
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import faust
from faust.types import TP

from broker.cluster import SYSTEM_CA, Cluster
from schemas import topics
from schemas.errors import BadInput, Unavailable
from streams.fleet.partition import Message
from streams.fleet.watchdog import STUCK_S, Watchdog
from streams.fleet.worker import PAUSE_MAX_S, SAVE_S, SAVE_SHARE, Abandoned, Worker

STOP_S = 5.0
"""What Faust gets for leaving the group; it may hang (see above)."""
SAVE_AT_STOP_S = 8.0
WATCH_S = 5.0
BUFFERED_MESSAGES = 64
"""Messages that Faust holds for us; each may be of half a megabyte."""


class Group(NamedTuple):
    """How a worker takes part.

    cluster       which Kafka
    name          of the consumer group
    member        this worker's own name in it, kept over restarts, so that a quick restart moves no partition; empty for none
    session_s     after this many seconds of silence a worker is taken for dead
    partitions    of the events topic
    data_dir      a directory for Faust's own use
    """

    cluster: Cluster
    name: str
    member: str
    session_s: float
    partitions: int
    data_dir: str


class Application:
    """A Faust worker around a ``Worker``. ``run`` returns the exit code. ``lags`` are messages of each partition of ours not taken yet."""

    def __init__(self, group: Group, say: Callable[[str], None], ends: Callable[[Iterable[int]], dict[int, int]]) -> None:
        """``ends`` gives the offset after the last message of each of these partitions; it blocks, and raises Unavailable."""
        self.lags: dict[int, int] = {}
        self._group = group
        self._say = say
        self._ends = ends
        self._worker: Worker | None = None
        self._events = group.cluster.ours(topics.EVENTS)
        self._app = faust.App(group.cluster.ours(group.name), **_options(group))
        self._topic = self._app.topic(
            self._events,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            partitions=group.partitions,
            internal=False,
            acks=False,
        )
        self._app.agent(self._topic, name="join")(self._messages)
        self._app.on_partitions_assigned.connect(self._assigned)  # type: ignore[arg-type]
        self._app.on_partitions_revoked.connect(self._revoked)  # type: ignore[arg-type]
        self._stop = asyncio.Event()
        self._code = 0

    # -- what Worker asks of the group --

    async def commit(self, offsets: dict[int, int]) -> bool:
        """Commit; False when this worker is no member any more."""
        consumer: Any = self._app.consumer
        return bool(await consumer._commit({TP(self._events, number): at for number, at in offsets.items()}))

    async def seek(self, partition: int, offset: int) -> None:
        """Read the partition from there on."""
        await self._app.consumer.seek_wait({TP(self._events, partition): offset})

    # -- what Faust tells --

    async def _assigned(self, app: Any, assigned: set[TP], **kwargs: Any) -> None:
        numbers = {tp.partition for tp in assigned if tp.topic == self._events}
        self.worker.assigned(numbers, self._app.consumer_generation_id)

    async def _revoked(self, app: Any, revoked: set[TP], **kwargs: Any) -> None:
        await self.worker.revoked(self._group.session_s / 2)

    async def _messages(self, stream: Any) -> None:
        """The agent. Nothing may leave it: Faust would start it anew and go on after the message."""
        try:
            async for event in stream.events():
                one = event.message
                headers = {str(name): bytes(value) for name, value in one.headers or ()}
                message = Message(one.offset, one.key or b"", one.value or b"", headers, int((one.timestamp or 0) * 1e9))
                await self.worker.handle(one.partition, one.generation_id, message)
        except Exception as bug:
            self.failed(bug)

    # -- life --

    @property
    def worker(self) -> Worker:
        """Whom the messages go to."""
        assert self._worker is not None
        return self._worker

    def failed(self, failure: BaseException, code: int = 70) -> None:
        """Leave at once, saving nothing: what is in memory cannot be trusted. The log has it all."""
        self._say(f"leaves the group, and another worker or the next start goes on: {failure!r}")
        os._exit(code)

    def run(self, worker: Worker) -> int:
        """Work until SIGTERM or SIGINT."""
        self._worker = worker
        return asyncio.run(self._main())

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._app.finalize()
        self._app.in_worker = True
        started = asyncio.ensure_future(self._app.start())
        started.add_done_callback(self._started)
        tasks = [asyncio.ensure_future(work) for work in (self._save_now_and_then(), self._watch())]
        for task in tasks:
            task.add_done_callback(self._task_ended)
        crashed = asyncio.ensure_future(self._app._crashed.wait())
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((crashed, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        if crashed.done():
            self._say(f"left the group: {self._app.crash_reason!r}")
            return 70
        await self._leave()
        return self._code

    def _started(self, start: "asyncio.Future[None]") -> None:
        if not start.cancelled() and (failure := start.exception()) is not None:
            self._say(f"cannot take part in the group: {failure!r}")
            self._code = Unavailable.exit_code
            self._stop.set()

    async def _save_now_and_then(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = SAVE_S
        while True:
            await asyncio.sleep(pause_s)
            begun = loop.time()
            try:
                await self.worker.save()
            except (Unavailable, Abandoned) as failure:
                self._say(f"states could not be saved, trying again: {failure}")
            pause_s = min(max(SAVE_S, SAVE_SHARE * (loop.time() - begun)), PAUSE_MAX_S)

    def _task_ended(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.failed(bug)

    async def _watch(self) -> None:
        """Measure how far behind we are, and leave when nothing moves though it could."""
        watchdog, clock = Watchdog(), asyncio.get_running_loop().time
        was_well = True
        while True:
            await asyncio.sleep(WATCH_S)
            worker = self.worker
            if bool(worker.trouble) == was_well:
                was_well = not was_well
                self._say("the store takes rows again" if was_well else f"rows wait, and messages with them: {worker.trouble}")
            positions, unread = worker.positions(), len(worker.held)
            try:
                ends = await asyncio.to_thread(self._ends, sorted(positions))
                excused = worker.excused or len(positions) < unread
            except Unavailable:
                ends, excused = {}, True
            self.lags = {number: max(0, ends[number] - at) for number, at in positions.items() if number in ends}
            if watchdog.stuck(clock(), worker.progress, sum(self.lags.values()), excused):
                problem = f"{sum(self.lags.values())} messages wait in partitions of ours, and none came for {STUCK_S:g} s"
                self.failed(Unavailable(problem, "start it again"))

    async def _leave(self) -> None:
        """Save, commit, and let Faust leave the group as long as it does not take long."""
        try:
            await asyncio.wait_for(self.worker.save(), SAVE_AT_STOP_S)
        except (TimeoutError, Unavailable, Abandoned) as failure:
            self._say(f"stops without saving its latest states; the next start joins a little again: {failure!r}")
        leaving = asyncio.ensure_future(self._app.stop())
        await asyncio.wait((leaving,), timeout=STOP_S)


def _options(group: Group) -> dict[str, Any]:
    """Faust's settings. Its web server is off, for it would show the tables' content to anyone who asks."""
    options: dict[str, Any] = {
        "broker": ";".join(f"kafka://{broker}" for broker in group.cluster.bootstrap.split(",")),
        "web_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "topic_partitions": group.partitions,
        "processing_guarantee": "at_least_once",
        "key_serializer": "raw",
        "value_serializer": "raw",
        "broker_session_timeout": group.session_s,
        "broker_heartbeat_interval": group.session_s / 4,
        "broker_rebalance_timeout": max(30.0, 3 * group.session_s),
        "broker_request_timeout": max(40.0, 4 * group.session_s),
        "stream_buffer_maxsize": BUFFERED_MESSAGES,
        "consumer_auto_offset_reset": "earliest",
        "table_standby_replicas": 0,
        "datadir": group.data_dir,
    }
    if group.member:
        options["consumer_group_instance_id"] = group.member
    cluster = group.cluster
    tls = _tls(cluster) if cluster.ca else None
    if cluster.mechanism:
        options["broker_credentials"] = faust.SASLCredentials(
            username=cluster.user, password=cluster.password, mechanism=cluster.mechanism, ssl_context=tls
        )
    elif tls is not None:
        options["broker_credentials"] = faust.SSLCredentials(tls)
    return options


def _tls(cluster: Cluster) -> ssl.SSLContext:
    """Raises BadInput when a file is not there or holds no certificate."""
    try:
        context = ssl.create_default_context(cafile=None if cluster.ca == SYSTEM_CA else cluster.ca)
        if cluster.cert:
            context.load_cert_chain(cluster.cert, cluster.key)
    except (OSError, ssl.SSLError) as failure:
        raise BadInput(
            f"certificates for Kafka cannot be read: {failure}", "mend kafka_ca, kafka_cert and kafka_key in the settings"
        ) from None
    return context
