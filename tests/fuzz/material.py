"""What is damaged: real batches, cut small, and the states and rows that belong to them."""

import lzma
from dataclasses import dataclass
from pathlib import Path

from queries.recordings import batches
from schemas.batch import Batch, BatchKind, batch_size, decode_batch, encode_batch, frames
from schemas.rows import Row
from streams.join import HostState, apply, dump

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"
DEMO = ROOT / "tasktrail" / "demo_data" / "web-17.tt.xz"
NEIGHBOUR = ROOT / "tests" / "unit" / "vectors" / "state_log.batches"
PIECE_RECORDS = 24
"""Records in one piece of the demo's recording."""


@dataclass(frozen=True)
class Material:
    """Whole logs of batches, their bytes, states that were saved within them, and a good host's batches with the rows of each."""

    logs: list[list[Batch]]
    recordings: list[bytes]
    states: list[bytes]
    neighbour: list[tuple[Batch, list[Row]]]


def pieces(log: list[Batch]) -> list[list[Batch]]:
    """The log in stretches of few records, each a log of its own."""
    out: list[list[Batch]] = []
    for batch in log:
        begin = count = 0
        for at, size in frames(batch.body):
            count += 1
            end = at + (size + 7 & ~7)
            if count == PIECE_RECORDS:
                out.append([piece(batch, begin, end)])
                begin, count = end, 0
        if begin < len(batch.body):
            out.append([piece(batch, begin, len(batch.body))])
    return out


def piece(batch: Batch, begin: int, end: int) -> Batch:
    """Those bytes of the body as a batch; a snapshot's stays one part of one."""
    body = batch.body[begin:end]
    if batch.kind == BatchKind.SNAPSHOT:
        return batch._replace(body=body, part=0, parts=1)
    return batch._replace(body=body, start=batch.start + begin, end=batch.start + end)


def neighbour() -> list[tuple[Batch, list[Row]]]:
    """A small host's log with losses, and the rows of each batch when nothing hostile is near."""
    data, state, out = NEIGHBOUR.read_bytes(), HostState(), list[tuple[Batch, list[Row]]]()
    while data:
        size = batch_size(data)
        batch = decode_batch(data[:size])
        out.append((batch, apply(state, batch)))
        data = data[size:]
    return out


def material() -> Material:
    """All of it, from the recordings that are kept with the tests and the demo."""
    logs = []
    for path in sorted(CORPUS.glob("*.tt")):
        with path.open("rb") as file:
            logs.append(list(batches(file, path.name)))
    states = []
    for log in logs:
        state = HostState()
        for batch in log:
            apply(state, batch)
            states.append(dump(state))
    with lzma.open(DEMO) as file:
        demo = list(batches(file, DEMO.name))  # type: ignore[arg-type]
    # Several records name the same processes, which is what hostile links need: so whole logs come as often as pieces.
    cut = pieces(demo)
    logs *= max(1, len(cut) // len(logs))
    logs += cut
    return Material(logs, [b"".join(map(encode_batch, log)) for log in logs], states, neighbour())
