"""The broker killed, stopped and started again under workers that join: the rows are those of the embedded join."""

import pytest

from broker.cluster import cluster
from deploy.local.kafka import Kafka
from store.address import Address
from tests.e2e.running import wait_until
from tests.fleet.fixtures import revive
from tests.fleet.kafka_for_tests import private
from tests.fleet.streaming import Fleet, Load, Parts, Worker, known, pause, prepare


@pytest.fixture(scope="module")
def parts(killable_kafka: Kafka, addresses: dict[str, Address]) -> Parts:
    """With a broker that may be killed."""
    revive(killable_kafka)
    made = Parts(killable_kafka, private(cluster(killable_kafka.address)), None, addresses)
    prepare(made)
    return made


def under_way(fleet: Fleet, load: Load, *workers: Worker) -> None:
    """Until rows of what is sent now are stored, and more of it is to come."""
    before = {worker: worker.number("worker_rows_stored") for worker in workers}
    wait_until(lambda: any(worker.number("worker_rows_stored") > before[worker] for worker in workers), f"rows: {fleet.said()}", 240)
    assert load.is_alive()


def test_a_broker_killed_and_started_after_ten_seconds(fleet: Fleet) -> None:
    kafka, sent = fleet.parts.kafka, known(200)
    assert kafka is not None
    workers = fleet.start_worker(), fleet.start_worker()
    fleet.ready(*workers)
    load = fleet.load(sent.messages, 40)
    under_way(fleet, load, *workers)
    kafka.kill()
    pause(10)
    kafka.start()
    load.all_sent()
    fleet.check(sent)
    fleet.start_worker()
    more = known(201)
    fleet.produce(more.messages)
    fleet.check(sent, more)


def test_a_broker_that_hangs_for_half_a_minute(fleet: Fleet) -> None:
    kafka, sent = fleet.parts.kafka, known(210)
    assert kafka is not None
    workers = fleet.start_worker(), fleet.start_worker()
    fleet.ready(*workers)
    load = fleet.load(sent.messages, 60)
    under_way(fleet, load, *workers)
    kafka.pause()
    try:
        pause(30)
    finally:
        kafka.resume()
    load.all_sent()
    fleet.check(sent)


def test_a_broker_stopped_and_started_in_order(fleet: Fleet) -> None:
    kafka, sent = fleet.parts.kafka, known(220)
    assert kafka is not None
    worker = fleet.start_worker()
    fleet.ready(worker)
    load = fleet.load(sent.messages, 30)
    under_way(fleet, load, worker)
    kafka.stop()
    kafka.start()
    load.all_sent()
    fleet.check(sent)
