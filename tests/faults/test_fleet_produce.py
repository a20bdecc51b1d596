"""The shipper and the brokers are killed while a storm goes on: each process is in the log, the ring's positions have no hole."""

import random
from pathlib import Path

from deploy.local.kafka import Kafka
from tests.e2e.running import tmpfs, wait_until
from tests.e2e.test_storm import Storms
from tests.fleet.producing import Producing, check_exactly_once, hole_bytes, joined, losses

CHILDREN = 20_000


def await_part(storms: Storms, count: int) -> None:
    """Returns when the storm has had so many more processes."""
    enough = len(storms.children) + count
    wait_until(lambda: len(storms.children) > enough, "a part of the storm", 240)


def check_all_there(producing: Producing, programs: Path, storms: Storms) -> None:
    """Nothing is missing, nothing is there twice."""
    batches = producing.wait_arrived()
    assert not storms.failures
    assert hole_bytes(batches) == 0
    store = joined(batches)
    assert losses(store) == []
    check_exactly_once(store, programs / "tiny", storms.children)


def test_the_shipper_is_killed_five_times_also_while_it_spools(producing: Producing, kafka: Kafka, programs: Path) -> None:
    chance = random.Random(5)
    producing.make_topics()
    producing.start()
    with Storms(programs) as storms:
        for turn in range(5):
            if turn % 2:
                kafka.pause()
                producing.wait_spooled()
            await_part(storms, chance.randrange(1_000, 2_500))
            producing.kill()
            if turn % 2:
                assert producing.spooled()
                if turn == 1:
                    kafka.resume()  # the next one finds a broker and a spool
            producing.start("--no-load")
            if turn == 3:
                producing.wait_spooled()
                kafka.resume()  # the next one finds a spool and adds to it
        wait_until(lambda: len(storms.children) > CHILDREN, "the storm's end", 240)
    check_all_there(producing, programs, storms)
    assert "all that was recorded was sent" in producing.stop()
    assert not producing.spooled()


def test_the_broker_is_killed_stopped_and_hangs(producing: Producing, kafka: Kafka, programs: Path) -> None:
    producing.make_topics()
    producing.start()
    with Storms(programs) as storms:
        await_part(storms, 1_000)
        kafka.kill()
        producing.wait_spooled()
        await_part(storms, 1_000)
        kafka.start()
        wait_until(lambda: not producing.spooled(), "the spool running empty", 240)
        kafka.stop()
        await_part(storms, 2_000)
        kafka.start()
        # Only one that is connected can be let down by silence.
        wait_until(lambda: producing.said().count("all is well again") == 2, "two recoveries", 240)
        await_part(storms, 1_000)
        kafka.pause()
        producing.wait_said("does not answer")
        kafka.resume()
        await_part(storms, 500)
    check_all_there(producing, programs, storms)
    wait_until(lambda: producing.said().count("all is well again") == 3, "three recoveries", 240)
    assert "cannot be reached" in producing.said() and "Kafka does not answer" in producing.said()


def test_the_disk_of_the_spool_is_full_while_the_broker_is_away(producing: Producing, kafka: Kafka, programs: Path) -> None:
    producing.place.state_dir.mkdir()
    with tmpfs(producing.spool, "512k"):
        producing.make_topics()
        producing.start()
        kafka.kill()
        with Storms(programs) as storms:
            producing.wait_said("finds no room")
            await_part(storms, 3_000)
        kafka.start()
        check_all_there(producing, programs, storms)
        producing.stop()
