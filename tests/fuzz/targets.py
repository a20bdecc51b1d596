"""What reads hostile bytes, and what must hold after each."""

import json
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from random import Random
from typing import NamedTuple

from producers import recording, remains
from producers.masking import Masking
from producers.segments import encode_record, scan
from queries import recordings
from schemas.batch import Batch, BatchKind, decode_batch, encode_batch, split_snapshot
from schemas.errors import DecodeError
from schemas.rows import Row
from streams.fleet.partition import SavedHost
from streams.fleet.state_log import packed, unpacked
from streams.join import HostState, apply, dump, load
from streams.join.saved import CHECKSUM, signed
from tests.fuzz import damage
from tests.fuzz.material import Material

ROWS_PER_PROCESS = 8
"""Rows that a record may lead to for each process that is known: all are written again when a day has gone by."""


class Case(NamedTuple):
    """Hostile bytes and what is done with them, which raises AssertionError, or anything but DecodeError, where something is wrong."""

    name: str
    data: bytes
    run: Callable[[], None]


class Fuzzer:
    """Makes cases, and keeps the good host beside which they run."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self._neighbour = self._good()
        self._masking = Masking(["secrets"])

    def case(self, random: Random) -> Case:
        """The case that follows from the state of ``random``."""
        pick = random.randrange(100)
        if pick < 15:
            return self._bytes(random)
        if pick < 84:
            return self._join(random)
        if pick < 93:
            return self._saved(random)
        return self._packed(random) if pick < 97 else self._segment(random)

    def neighbour_is_untouched(self) -> None:
        """The next good batch of another host gives its rows."""
        rows, expected = next(self._neighbour)
        assert rows == expected, "a good host's batch gives other rows"

    def _good(self) -> Iterator[tuple[list[Row], list[Row]]]:
        while True:
            state = HostState()
            for batch, expected in self.material.neighbour:
                yield apply(state, batch), expected

    def _bytes(self, random: Random) -> Case:
        """A recording of which some bytes are others: read as `decode` does."""
        data = damage.flipped(random, random.choice(self.material.recordings))

        def run() -> None:
            for batch in recordings.batches(BytesIO(data), "hostile"):
                for shown in recordings.record_objects(batch):
                    assert shown["record"]
                self._edges(batch)

        return Case("recording", data, run)

    def _edges(self, batch: Batch) -> None:
        """What the host's edge and the spool look at in a body."""
        remains.ends([encode_batch(batch)])
        survive(partial(self._masking.body, batch.body))
        survive(partial(recording.last_snapshot_end, batch.body))
        if batch.kind == BatchKind.SNAPSHOT:
            survive(partial(split_snapshot, batch, 1024))

    def _join(self, random: Random) -> Case:
        """A log with one hostile batch in it: read as `run` and a fleet's worker do."""
        log = random.choice(self.material.logs)
        at = random.randrange(len(log))
        data = encode_batch(damage.batch_damaged(random, log[at]))

        def run() -> None:
            state = HostState()
            for batch in log[:at]:
                apply(state, batch)
            hostile = decode_batch(data)
            known, held = len(state.living), len(state.waiting)
            records = len(hostile.body) // 56 + 1
            rows = apply(state, hostile)
            assert len(state.living) <= known + 2 * records and len(state.waiting) <= held + 4 * records, "the state grows without bound"
            assert len(rows) <= ROWS_PER_PROCESS * (known + records) * (records + 1), f"{len(rows)} rows"
            for batch in log[at + 1 :]:
                apply(state, batch)
            if not len(data) % 16:
                saved = dump(state)
                assert dump(load(saved)) == saved, "a state that was loaded is saved otherwise"
            if not len(data) % 8:
                self._edges(hostile)

        return Case("join", data, run)

    def _saved(self, random: Random) -> Case:
        """A saved state of which bytes or values are others. What is loaded must go on."""
        data = random.choice(self.material.states)
        if random.randrange(4):
            tree = json.loads(data)
            del tree[CHECKSUM]
            data = signed(json.dumps(damage.tree_damaged(random, tree), separators=(",", ":")).encode())
        else:
            data = damage.flipped(random, data)
        log = random.choice(self.material.logs)

        def run() -> None:
            state = load(data)
            apply(state, log[0]._replace(host_id=state.host_id, boot_id=state.boot_id, ring_id=state.ring_id + 1 & (1 << 64) - 1))
            dump(state)

        return Case("saved state", data, run)

    def _packed(self, random: Random) -> Case:
        """A state as it lies in Kafka; some are made to be large when they are unpacked."""
        if random.randrange(16):
            data = damage.flipped(random, packed(SavedHost(b"k", 7, random.choice(self.material.states))))
        else:
            size = number_of_bytes = random.choice((0, 1, 1 << 16, 1 << 20))
            size += random.choice((0, 1, 1 << 22))
            data = b"TTS1" + (7).to_bytes(8, "little") + number_of_bytes.to_bytes(4, "little") + zlib.compress(bytes(size), 9)

        def run() -> None:
            load(unpacked(b"k", data).state)

        return Case("packed state", data, run)

    def _segment(self, random: Random) -> Case:
        """A segment of the spool of which some bytes are others: what is read of it was in it, in order."""
        payloads = [encode_batch(batch) for batch in random.choice(self.material.logs)[:6]]
        data = damage.flipped(random, b"".join(encode_record(number, payload) for number, payload in enumerate(payloads)))

        def run() -> None:
            fd = os.memfd_create("segment")
            try:
                os.write(fd, data)
                found = [(number, payload) for _, number, payload in scan(fd, len(data)) if payload is not None]
            finally:
                os.close(fd)
            assert all(payloads[number] == payload for number, payload in found), "a payload that was never put in"
            remains.ends(payload for _, payload in found)

        return Case("spool segment", data, run)


def survive(read: Callable[[], object]) -> None:
    """Reading ends in a value or in DecodeError that says something."""
    try:
        read()
    except DecodeError as error:
        assert error.problem
