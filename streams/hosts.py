"""What is told of a host as a whole, now and then: who it is, whether it records, how far it has been read. Pure."""

from schemas.batch import Batch, BatchKind
from schemas.rows import HostRow
from streams.join import HostState

REPORT_NS = 15_000_000_000
"""Pause between two reports of a host that sends."""


def host_row(state: HostState, batch: Batch, heard_ns: int, machine: bytes, machines: int) -> HostRow:
    """The row of a host whose join has just taken in ``batch``.

    heard_ns  wall clock of whoever received it
    machine   its fingerprint
    machines  how many machines have its host_id
    """
    since_ns = state.recording_since_ns
    return HostRow(
        state.host_id,
        state.host,
        state.boot_id,
        batch.host_id,
        machine.hex().encode(),
        machines,
        state.wall_ns(since_ns) if since_ns else 0,
        int(since_ns > 0 and state.links_lost is None),
        batch.realtime_ns,
        batch.boottime_ns,
        heard_ns,
        state.ring_id,
        state.position,
        len(state.living),
        batch.lost if batch.kind == BatchKind.EVENTS else state.counters.get("lost", 0),
        batch.skipped,
        heard_ns // 1_000_000_000,
        heard_ns,
    )
