"""Who reports: of each host its newest boot, what was lost lately, and what is to be said of it."""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from queries.losses import CHAIN_CAUSES
from queries.rows import Source, columns, make
from queries.times import show_duration
from schemas.rows import HostRow, LossCause

SILENT_NS = 60_000_000_000
"""A host that records sends something every few seconds; after this long without it counts as silent."""
LATE_NS = 5_000_000_000
"""What arrives later than this after it was sent is told as late."""

_NEWEST = "SELECT {columns} FROM hosts FINAL ORDER BY heard DESC LIMIT 1 BY host_id"
_LOSSES = """
SELECT host_id, cause, count(), sum(amount) FROM losses FINAL
WHERE end >= fromUnixTimestamp64Nano({since:Int64}) AND begin_boottime > 0 GROUP BY host_id, cause"""


class Lost(NamedTuple):
    """Losses of one cause: how many intervals, and how many records, bytes or times in all."""

    times: int
    amount: int


class HostSeen(NamedTuple):
    """A host's newest row, and its losses since some moment by cause."""

    row: HostRow
    losses: Mapping[LossCause, Lost]


def fetch_hosts(source: Source, since_ns: int) -> list[HostSeen]:
    """All hosts, those heard of last first; losses that ended after ``since_ns``, the time before the first recorder left out."""
    rows = make(HostRow, source.query(_NEWEST.format(columns=columns(HostRow))).rows)
    losses: dict[UUID, dict[LossCause, Lost]] = {}
    for host_id, cause, times, amount in source.query(_LOSSES, {"since": since_ns}).rows:
        losses.setdefault(host_id, {})[LossCause[str(cause).upper()]] = Lost(int(times), int(amount))
    return [HostSeen(row, losses.get(row.host_id, {})) for row in rows]


def state(row: HostRow, now_ns: int) -> str:
    """``recording``, ``starting`` (only its snapshot has come), ``not recording`` (it reports, its recorder is gone), or ``silent``."""
    if now_ns - row.heard > SILENT_NS:
        return "silent"
    if row.recording:
        return "recording"
    return "not recording" if row.recording_since else "starting"


def remarks(seen: HostSeen, now_ns: int) -> list[str]:
    """What an operator should know of the host, one short sentence each; nothing where all is well."""
    row, told = seen.row, []
    if state(row, now_ns) == "silent":
        told.append(f"silent for {show_duration(now_ns - row.heard)}")
    elif state(row, now_ns) == "not recording":
        told.append("its recorder is gone")
    if row.claims != row.host_id:
        told.append(f"has the host_id {row.claims} of another machine")
    elif row.machines > 1:
        told.append(f"{row.machines} machines have its host_id")
    if row.heard - row.sent > LATE_NS:
        told.append(f"arrives {show_duration(row.heard - row.sent)} late")
    elif row.sent - row.heard > LATE_NS:
        told.append(f"its clock is {show_duration(row.sent - row.heard)} ahead")
    lost = [(cause, one) for cause, one in seen.losses.items() if cause in CHAIN_CAUSES]
    told += [f"{_amount(cause, one)} {cause.name.lower()}" for cause, one in sorted(lost)]
    return told


def _amount(cause: LossCause, lost: Lost) -> str:
    if cause == LossCause.LOG_HOLE:
        return f"{lost.amount} bytes"
    return f"{lost.amount}" if lost.amount else f"{lost.times} times"
