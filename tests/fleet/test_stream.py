"""The same batches through Kafka and Faust and through the embedded join: the rows are the same, however the batches come."""

import itertools
import random
from collections.abc import Callable

import pytest

from broker.edges import Record
from schemas import topics
from schemas.batch import Batch, BatchKind
from schemas.rows import HostRow, ImageKind, ImageRow, Row
from schemas.signing import host_key, signature
from streams.fleet.claims import PRINTS_NEAR
from tests.e2e.running import wait_until
from tests.fleet.streaming import PLAIN, Fleet, Known, Sent, known, message_of
from tests.sim.channel import Log, batches, cut_everywhere, cut_nowhere, cut_randomly
from tests.sim.oracle import Key, store_of
from tests.sim.scenario import exact_log, flat
from tests.sim.test_claims import HOST_ID, KEY, Machine, check, copied
from tests.sim.test_claims import interleaved as told_apart
from tests.sim.test_recall import World, content, marks, world


def test_the_rows_are_those_of_one_host(fleet: Fleet) -> None:
    sent = known(7)
    third = len(sent.messages) // 3
    first = fleet.start_worker()
    fleet.produce(sent.messages[:third])
    fleet.caught_up()
    second = fleet.start_worker()
    fleet.produce(sent.messages[third : 2 * third])
    second.kill()
    fleet.produce(sent.messages[2 * third :])
    fleet.start_worker()
    fleet.check(sent)
    assert first.stop() == 0, first.said()


def recut(seed: int) -> tuple[list[Batch], list[Batch]]:
    """Batches of a host, and as they come when a producer is started anew all the time: cut elsewhere, doubled, overlapping."""
    log, rng = exact_log(seed)
    plain = flat(batches(log, cut_nowhere(log), random.Random(1)))
    one, other = (flat(batches(log, cut_randomly(log, rng), rng)) for _ in range(2))
    mixed = []
    for batch in one:
        mixed.append(batch)
        if rng.random() < 0.1:
            mixed.append(batch)
        if rng.random() < 0.1:
            # What another cutting has of the same stretch, from its begin or from before it.
            mixed += [some for some in other if overlaps(some, batch) and some.end <= batch.end]
    return plain, mixed


def overlaps(one: Batch, other: Batch) -> bool:
    """Whether two batches are of one ring and share a stretch of it."""
    same = (one.kind, one.boot_id, one.ring_id) == (BatchKind.EVENTS, other.boot_id, other.ring_id) and other.kind == BatchKind.EVENTS
    return same and one.start < other.end and other.start < one.end


def test_batches_cut_elsewhere_doubled_and_overlapping_give_the_same_rows(fleet: Fleet) -> None:
    pairs = [recut(7000 + number) for number in range(4)]
    overlapping = sum(overlaps(one, other) for _, mixed in pairs for one, other in itertools.pairwise(mixed))
    assert overlapping >= 4, "the test sends what it is about"
    todo, rng = [list(mixed) for _, mixed in pairs], random.Random(1)
    messages = []
    while left := [log for log in todo if log]:
        messages.append(message_of(rng.choice(left).pop(0)))
    fleet.start_worker()
    fleet.produce(messages)
    fleet.check(Known([plain for plain, _ in pairs], messages))


def test_the_whole_topic_again_gives_nothing_new(fleet: Fleet) -> None:
    sent = known(20)
    fleet.start_worker()
    fleet.produce(sent.messages)
    fleet.check(sent)
    before = facts(fleet, sent)
    fleet.produce(sent.messages)
    fleet.check(sent)
    # The same rows may lie there twice, or superseded ones be gone by now; none is another.
    assert facts(fleet, sent) <= before


def numbered(seed: int, cut: Callable[[Log, random.Random], list[list[int]]], size: int) -> tuple[list[Batch], list[Sent]]:
    """A host's batches, and its messages as a producer numbers them that starts anew with each boot."""
    log, rng = exact_log(seed, size)
    whole, messages = flat(batches(log, cut(log, rng), rng)), list[Sent]()
    for boot_id, boot in itertools.groupby(whole, key=lambda batch: batch.boot_id):
        before = 0
        for number, batch in enumerate(boot, 1):
            key, value, _ = message_of(batch)
            headers = {topics.SESSION: boot_id.bytes, topics.MACHINE: b"machine", topics.SEQUENCE: topics.sequence(number, before)}
            messages.append(Sent(key, value, PLAIN | headers))
            before = topics.print_of(value)
    return whole, messages


def test_the_log_appended_to_itself_gives_nothing_new_and_what_is_not_remembered_is_a_dead_letter(fleet: Fleet) -> None:
    hosts = [numbered(2003, lambda log, _: cut_everywhere(log), 600), *(numbered(2010 + one, cut_randomly, 0) for one in range(3))]
    longest = max(len(list(boot)) for _, boot in itertools.groupby(hosts[0][0], key=lambda batch: batch.boot_id))
    assert longest > 2 * PRINTS_NEAR and len({batch.boot_id for batch in hosts[0][0]}) > 1, "the test sends what it is about"
    turns = itertools.zip_longest(*(messages for _, messages in hosts))
    sent = Known([whole for whole, _ in hosts], [message for turn in turns for message in turn if message is not None])
    worker = fleet.start_worker()
    fleet.produce(sent.messages)
    fleet.check(sent)
    before, number = facts(fleet, sent), worker.number("worker_dead_letters")
    assert not number and not fleet.dead()
    appended = [Sent(record.key, record.value, record.headers) for record in fleet.topic(topics.EVENTS) if record.key in keys(sent)]
    assert len(appended) == len(sent.messages)
    fleet.produce(appended)
    fleet.check(sent)
    assert facts(fleet, sent) <= before
    assert {row.host_id for row in fleet.rows(sent.boots)} == {log[0].host_id for log in sent.logs}
    assert not worker.number("worker_identity_clashes")
    dead = fleet.dead()
    assert {(letter.key, letter.value) for letter in dead} <= {(one.key, one.value) for one in sent.messages}
    assert 0 < len(dead) == worker.number("worker_dead_letters") < len(appended) - PRINTS_NEAR
    assert all("may be a repeat" in reason_of(letter) for letter in dead)


def keys(sent: Known) -> set[bytes]:
    """Of its messages."""
    return {one.key for one in sent.messages}


def facts(fleet: Fleet, sent: Known) -> set[Row]:
    """All rows of images and losses of these hosts, superseded ones too."""
    return {row for row in fleet.rows(sent.boots) if not isinstance(row, HostRow)}


def test_what_cannot_be_read_is_a_dead_letter_with_its_reason(fleet: Fleet) -> None:
    sent, rng = known(30), random.Random(30)
    one, stranger = sent.messages[0], sent.logs[0][0].boot_id
    poison = {
        "random": Sent(one.key, rng.randbytes(3000)),
        "empty": Sent(one.key, b""),
        "cut": Sent(one.key, one.value[: len(one.value) // 2]),
        "flipped": Sent(one.key, one.value[:-3] + bytes([one.value[-3] ^ 1]) + one.value[-2:]),
        "unknown batch": Sent(one.key, one.value[:4] + bytes([99]) + one.value[5:]),
        "unknown message": Sent(one.key, one.value, {topics.VERSION: b"7"}),
        "wrong host": Sent(str(stranger).encode(), one.value),
        "no key": Sent(b"", one.value),
    }
    messages = list(sent.messages)
    for bad in poison.values():
        messages.insert(rng.randrange(len(messages)), bad)
    worker = fleet.start_worker()
    fleet.produce(messages)
    fleet.check(sent)
    dead = fleet.dead()
    assert sorted((letter.key, letter.value) for letter in dead) == sorted((bad.key, bad.value) for bad in poison.values())
    assert all(reason_of(letter) and letter.headers[topics.ORIGIN].startswith(b"tasktrail.events/") for letter in dead)
    reasons = {letter.value + letter.key: reason_of(letter) for letter in dead}
    wrong_host = poison["wrong host"]
    assert "another's" in reasons[wrong_host.value + wrong_host.key]
    assert any("version b'7'" in reason_of(letter) for letter in dead)
    assert worker.number("worker_dead_letters") == len(poison)
    assert worker.number("worker_refused") == 1


def reason_of(letter: Record) -> str:
    """Why it is one."""
    return letter.headers[topics.REASON].decode()


def test_only_what_its_host_has_signed_is_taken(fleet: Fleet) -> None:
    sent, master = known(40), random.Random(40).randbytes(32)
    path = fleet.directory / "master.key"
    path.touch(0o600)
    path.write_text(master.hex())
    fleet.environment["TASKTRAIL_SIGN_MASTER_FILE"] = str(path)

    def signed(one: Sent, key: bytes) -> Sent:
        return one._replace(headers={**PLAIN, topics.SIGNATURE: signature(key, one.key, PLAIN, one.value)})

    forged = known(41).messages[:6]  # of hosts that never reported
    other_host = host_key(master, sent.messages[0].key.decode())
    right = signed(forged[2], host_key(master, forged[2].key.decode()))
    bad = [
        forged[0],
        signed(forged[1], other_host if forged[1].key != sent.messages[0].key else master),
        right._replace(value=right.value[:-1] + bytes([right.value[-1] ^ 1])),
        right._replace(headers={**right.headers, topics.MACHINE: b"another"}),
        signed(forged[3], master),
    ]
    worker = fleet.start_worker()
    fleet.produce(bad[:3])
    fleet.produce(signed(one, host_key(master, one.key.decode())) for one in sent.messages)
    fleet.produce(bad[3:])
    fleet.check(sent)
    assert worker.number("worker_refused") == len(bad) == len(fleet.dead())
    assert {"it is not signed", "its signature is not that of the host"} == {reason_of(letter) for letter in fleet.dead()}
    refused = {batch.boot_id for log in known(41).logs for batch in log}
    assert not fleet.rows(refused)


def test_two_machines_with_one_host_id_are_never_mixed(fleet: Fleet) -> None:
    rng = random.Random(50)
    common, one, other = copied(50, 30)
    first = Machine(b"same", b"session")
    before = first.messages(common)
    second = Machine(b"same", b"session")
    second.number, second.before = first.number, first.before
    halves = [first.messages(one), second.messages(other)]
    stranger, _ = exact_log(51)
    third_log = flat(batches(stranger, cut_nowhere(stranger), rng))
    messages = before + told_apart(rng, *halves, Machine(b"another", b"run").messages(third_log))
    goes_on = next(message for message in messages[len(before) :] if message in (halves[0][0], halves[1][0])) == halves[0][0]
    worker = fleet.start_worker()
    fleet.produce(Sent(KEY, value, headers) for value, headers in messages)
    fleet.caught_up()
    boots = {batch.boot_id for batch in [*common, *one, *other, *third_log]}
    rows = fleet.rows(boots)
    check(rows, [common + one, other, third_log] if goes_on else [common + other, one, third_log])
    assert HOST_ID in {row.host_id for row in rows}
    assert worker.number("worker_identity_clashes") == 2


@pytest.mark.parametrize("deleted", [False, True], ids=["emptied", "deleted"])
def test_without_states_the_log_is_read_again(fleet: Fleet, deleted: bool) -> None:
    sent = known(61 if deleted else 60)
    half = len(sent.messages) // 2
    first = fleet.start_worker()
    fleet.produce(sent.messages[:half])
    fleet.caught_up()
    assert first.stop() == 0
    emptied = fleet.delete_states() if deleted else fleet.forget_states()
    fleet.produce(sent.messages[half:])
    second = fleet.start_worker()
    fleet.check(sent)
    assert second.number("worker_partitions_rebuilt") == len(emptied)


def test_without_states_and_the_log_before_rows_are_the_same_or_say_what_is_unknown(fleet: Fleet) -> None:
    """All that is left of the time before is what the store remembers."""
    worlds = [world(seed) for seed in (2, 5, 7, 8)]
    cuts = [sorted(it.quiet)[len(it.quiet) // 2] for it in worlds]
    first = fleet.start_worker()
    fleet.produce(message_of(batch) for it, cut in zip(worlds, cuts, strict=True) for batch in it.batches[:cut])
    fleet.caught_up()
    assert first.stop() == 0
    fleet.delete_states()
    fleet.delete_events()
    second = fleet.start_worker()
    fleet.produce(message_of(batch) for it, cut in zip(worlds, cuts, strict=True) for batch in it.batches[cut:])
    fleet.caught_up()
    assert second.lives() and not fleet.dead()
    for it in worlds:
        found = store_of(fleet.rows({batch.boot_id for batch in it.batches})).images
        check_known_or_unknown(it, found)


def check_known_or_unknown(it: World, found: dict[Key, ImageRow]) -> None:
    """The rows are the join's own, but where they say that something is unknown; what is not there is a hole in later rows' chains."""
    # What a snapshot and an exec that crossed left open may be known better now; of a loss more rows may be marked, none less.
    open_then = {row.task_id for row in it.store.images.values() if row.chain_lost}
    less_known = {key for key, row in found.items() if row.chain_lost or row.kind == ImageKind.UNKNOWN or row.task_id in open_then}
    assert len(less_known) < len(found) // 2
    for key in found.keys() - less_known:
        before = it.store.images[key]
        assert content(it.log, True, found[key]._replace(**marks(found[key], before))) == content(it.log, True, before)
    gone = it.store.images.keys() - found.keys()
    assert len(gone) <= 1, "no more than what waited to be written"
    for *process, exec_id in gone:
        later = [row for key, row in found.items() if [*key[:-1]] == process and key[-1] > exec_id]
        assert later and all(row.chain_lost for row in later)


def small_hosts(first: int, count: int, size: int) -> Known:
    """Many hosts of some processes each, batch by batch in turn."""
    logs = []
    for seed in range(first, first + count):
        log, rng = exact_log(seed, size)
        logs.append(flat(batches(log, cut_randomly(log, rng), rng)))
    turns = itertools.zip_longest(*logs)
    return Known(logs, [message_of(batch) for turn in turns for batch in turn if batch is not None])


@pytest.mark.parametrize(("count", "size"), [(20, 0), (1000, 8)])
def test_many_hosts_in_one_topic_never_cross_and_no_partition_starves(fleet: Fleet, count: int, size: int) -> None:
    sent = small_hosts(1_000_000 * count, count, size)
    host_of = {batch.boot_id: batch.host_id for log in sent.logs for batch in log}
    assert len({log[0].host_id for log in sent.logs}) == count
    workers = fleet.start_worker(), fleet.start_worker()
    fleet.ready(*workers)
    load = fleet.load(sent.messages, 5)
    load.all_sent()
    fleet.check(sent)  # every partition is committed to its end
    mine = fleet.rows(sent.boots)
    assert {row.host_id for row in mine} == set(host_of.values())
    assert not [row for row in mine if row.host_id != host_of[row.boot_id]]
    assert all(worker.number("worker_messages") for worker in workers), "both have work"


def test_the_numbers_say_how_it_is_going(fleet: Fleet) -> None:
    sent = known(94)
    fleet.produce([*sent.messages, *sent.messages])
    worker = fleet.start_worker()
    fleet.check(sent)
    numbers = wait_until(lambda: lags(worker.metrics()), "no lag in any partition", 240)
    assert numbers["tasktrail_worker_messages_total"] >= 2 * len(sent.messages)
    assert numbers["tasktrail_worker_rows_stored_total"] >= numbers["tasktrail_worker_rows_total"] > 0
    unknown = {row.task_id for row in fleet.rows(sent.boots) if isinstance(row, ImageRow) and row.kind == ImageKind.UNKNOWN}
    assert numbers["tasktrail_worker_unknown_images_total"] >= len(unknown) > 0
    assert numbers["tasktrail_worker_hosts"] == len(sent.logs)
    delays = {name for name in numbers if name.startswith("tasktrail_host_delay_seconds{")}
    assert delays == {f'tasktrail_host_delay_seconds{{host_id="{log[0].host_id}"}}' for log in sent.logs}
    assert numbers["tasktrail_worker_delay_max_seconds"] >= numbers["tasktrail_worker_delay_median_seconds"]


def lags(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers, once they say of every partition that nothing waits in it."""
    found = [value for name, value in numbers.items() if name.startswith("tasktrail_partition_lag_messages{")]
    return numbers if len(found) == numbers.get("tasktrail_worker_partitions") and not any(found) else {}
