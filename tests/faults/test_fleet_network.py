"""The network between host and brokers goes down, comes back slow, and loses packets, while a storm goes on."""

from pathlib import Path

from broker.cluster import cluster
from deploy.local.kafka import Kafka
from tests.e2e.running import Place, wait_until
from tests.e2e.test_storm import Storms
from tests.faults.test_fleet_produce import await_part, check_all_there
from tests.fleet.kafka_for_tests import needs_its_own_kafka
from tests.fleet.producing import Producing
from tests.fleet.wire import Wire


def test_a_wire_that_is_cut_then_slow_and_lossy_loses_nothing(place: Place, programs: Path, tmp_path: Path) -> None:
    needs_its_own_kafka("has a broker at the end of a wire of its own")
    place.env["TASKTRAIL_RING_BYTES"] = "8MiB"
    with Wire() as wire, Kafka(tmp_path / "kafka", host=wire.here) as kafka:
        producing = Producing(place, cluster(kafka.address))
        producing.prefix = wire.prefix
        producing.make_topics()
        producing.start()
        try:
            with Storms(programs) as storms:
                await_part(storms, 1_000)
                wire.down = True
                producing.wait_spooled()
                await_part(storms, 4_000)  # ten seconds or more
                wire.delay_s, wire.loss = 0.2, 0.05
                wire.down = False
                await_part(storms, 4_000)
            check_all_there(producing, programs, storms)
            wait_until(lambda: not producing.spooled(), "the spool running empty", 240)
            assert wire.lost > 20
            producing.stop()
        finally:
            producing.end()
