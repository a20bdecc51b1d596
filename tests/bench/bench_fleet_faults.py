"""What a fault costs the fleet: how long nobody joins a killed worker's hosts, and how many rows are written a second time."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from store.connection import Connection
from tests.e2e.running import wait_until
from tests.fleet.store_wire import StoreWire
from tests.fleet.streaming import SESSION_S, Fleet, Known, Worker, known, message_of, running_parts, started_fleet
from tests.sim.channel import batches, cut_randomly
from tests.sim.scenario import exact_log, flat

HOSTS = 400
LOAD_S = 15.0


@contextmanager
def a_fleet() -> Iterator[Fleet]:
    """Everything, and no worker yet."""
    with tempfile.TemporaryDirectory() as name, running_parts(Path(name)) as parts, started_fleet(parts, Path(name)) as fleet:
        yield fleet


def recovery() -> dict[str, float]:
    """Two workers share 400 hosts; one is killed, and all hosts send: until those of the killed one are joined."""
    logs = []
    for seed in range(HOSTS):
        log, rng = exact_log(9_000_000 + seed, 8)
        logs.append(flat(batches(log, cut_randomly(log, rng), rng)))
    with a_fleet() as fleet:
        victim, other = fleet.start_worker(), fleet.start_worker()
        fleet.ready(victim, other)
        fleet.produce(message_of(batch) for log in logs for batch in log[:-2])
        fleet.caught_up()
        owned = victim.number("worker_hosts")
        more = [message_of(batch) for log in logs for batch in log[-2:]]
        victim.kill()
        killed = time.monotonic()
        before = other.number("worker_messages")
        fleet.produce(more)
        wait_until(lambda: other.number("worker_messages") >= before + len(more), f"the other one having all: {other.said()}", 180)
        recovered = time.monotonic() - killed
    return {"killed_owned_hosts": owned, "recovery_s": recovered, "recovery_beyond_session_s": recovered - SESSION_S}


def written_twice(fleet: Fleet, sent: Known) -> tuple[int, int]:
    """Rows of images that lie in the store, and how many of them are there already."""
    boots = "', '".join(map(str, sent.boots))
    counts = "SELECT count(), count() - uniqExact(host_id, boot_id, start_boottime, tgid, exec_id, version) FROM images"
    with Connection(fleet.parts.addresses["reader"]) as reader:
        ((rows, twice),) = reader.query(f"{counts} WHERE boot_id IN ('{boots}')").rows
    return int(rows), int(twice)


def busiest(fleet: Fleet) -> Worker:
    """The worker that has joined most."""
    return max((worker for worker in fleet.workers if worker.lives()), key=lambda worker: worker.number("worker_messages"))


def killed(fleet: Fleet) -> None:
    """kill -9, and another one comes."""
    busiest(fleet).kill()
    fleet.start_worker()


def stopped(fleet: Fleet) -> None:
    """SIGTERM, and another one comes."""
    busiest(fleet).stop(30)
    fleet.start_worker()


def hung(fleet: Fleet) -> None:
    """It hangs for longer than the session."""
    worker = busiest(fleet)
    worker.freeze()
    time.sleep(1.5 * SESSION_S)
    worker.thaw()


def added(fleet: Fleet) -> None:
    """One more comes."""
    fleet.start_worker()


def duplicates() -> dict[str, float]:
    """Rows that are written a second time because of one fault under load; merges, which remove them, are held back."""
    faults: dict[str, Callable[[Fleet], None]] = {
        "none": lambda _: None,
        "kill": killed,
        "stop": stopped,
        "hang": hung,
        "join": added,
    }
    found: dict[str, float] = {}
    with a_fleet() as fleet:
        with Connection(fleet.parts.addresses["writer"]) as writer:
            # Merges would remove them.
            no_merges = ", ".join(f"max_bytes_to_merge_at_{which}_space_in_pool = 1" for which in ("max", "min"))
            writer.execute(f"ALTER TABLE images MODIFY SETTING {no_merges}")
        fleet.ready(fleet.start_worker(), fleet.start_worker())
        for number, (name, fault) in enumerate(faults.items()):
            sent = known(9_100 + number)
            load = fleet.load(sent.messages, LOAD_S)
            time.sleep(LOAD_S / 3)
            fault(fleet)
            load.all_sent()
            fleet.caught_up()
            rows, found[f"twice_{name}"] = written_twice(fleet, sent)
        found["rows_of_a_load"] = rows
        wire, sent = StoreWire(fleet.store_port), known(9_150)
        for worker in fleet.workers:
            worker.kill()
        fleet.store_port = wire.port
        fleet.ready(fleet.start_worker())
        wire.cuts = 1
        fleet.produce(sent.messages)
        fleet.caught_up()
        _, found["twice_store_cut"] = written_twice(fleet, sent)
        wire.close()
    return found
