"""What is missing: losses and the time before the recorder, and how they touch an answer."""

from collections.abc import Iterable

from queries import find as finding
from queries.find import Condition
from queries.rows import Source, fetch
from queries.times import Moment, show_time
from schemas.rows import LossCause, LossRow

CHAIN_CAUSES = (
    LossCause.RING_FULL,
    LossCause.SKIPPED,
    LossCause.NO_RECORDER,
    LossCause.LOG_HOLE,
    LossCause.UNDECODABLE,
    LossCause.ROWS_LOST,
)
"""Causes by which whole processes or execs can be missing from an answer."""

WORDS = {
    LossCause.RING_FULL: "the ring was full",
    LossCause.SKIPPED: "the kernel skipped the recorder",
    LossCause.NO_RECORDER: "nobody recorded",
    LossCause.LOG_HOLE: "a part of the ring never arrived",
    LossCause.UNDECODABLE: "records could not be read",
    LossCause.RENAME_DROPPED: "renames were left out, the ring being half full",
    LossCause.ARGV_SHORTENED: "arguments were cut short, the ring being half full",
    LossCause.ROWS_LOST: "the store was put back to an earlier state",
    LossCause.IDENTITY_CLASH: "two machines have one host_id",
}

_NEWEST = "ORDER BY version DESC LIMIT 1 BY host_id, boot_id, ring_id, position, cause"
_SINCE = "SELECT min(end) FROM losses FINAL WHERE cause = 'no_recorder' AND {of_hosts}"
_FIRST = "SELECT min(begin) FROM images WHERE kind IN ('exec', 'fork') AND {of_hosts}"
_TOUCHING = """
WHERE cause IN ({{causes}}) AND begin <= fromUnixTimestamp64Nano({{to:Int64}}) AND end >= fromUnixTimestamp64Nano({{from:Int64}})
AND {{of_hosts}} {newest}"""


def recording_since(source: Source, hosts: Condition | None = None) -> int:
    """When the first recording in the store, or of these hosts, began, wall-clock nanoseconds; 0 when nothing was ever recorded."""
    where, params = finding.joined([hosts] if hosts else [])
    for statement in (_SINCE, _FIRST):
        rows = source.query(statement.replace("{of_hosts}", where), params).rows
        if rows and rows[0][0] > 0:
            return int(rows[0][0])
    return 0


def touching(source: Source, from_ns: int, to_ns: int, hosts: Condition | None = None) -> list[LossRow]:
    """Losses of processes or execs that overlap the interval, of these hosts or of all, oldest first."""
    of_hosts, params = finding.joined([hosts] if hosts else [])
    names = ", ".join(f"'{cause.name.lower()}'" for cause in CHAIN_CAUSES)
    where = _TOUCHING.format(newest=_NEWEST).replace("{causes}", names).replace("{of_hosts}", of_hosts)
    rows = fetch(source, LossRow, where, {**params, "from": from_ns, "to": to_ns}, "losses")
    return sorted(rows, key=lambda row: (row.begin, row.end))


def in_words(rows: Iterable[LossRow]) -> str:
    """``nobody recorded between … and …; the ring was full (12 records) between … and …``."""
    shown = []
    for row in rows:
        amount = f" ({row.amount} {'bytes' if row.cause == LossCause.LOG_HOLE else 'records'})" if row.amount else ""
        shown.append(f"{WORDS[LossCause(row.cause)]}{amount} between {show_time(row.begin)} and {show_time(row.end)}")
    return "; ".join(shown)


def what_may_hide(source: Source, hosts: Condition | None, at: Moment | None) -> str:
    """Why a process may be unknown although it was: recording began later, or a loss touches the time. Empty if neither."""
    since = recording_since(source, hosts)
    if not since:
        return "nothing was recorded yet; `tasktrail run` records this host"
    if at is None:
        return f"recording began at {show_time(since, 0)}"
    reasons = []
    if at.begin_ns < since:
        reasons.append(f"recording began later, at {show_time(since, 0)}")
    shown = in_words(row for row in touching(source, at.begin_ns, at.end_ns, hosts) if row.end > since)
    return "; ".join([*reasons, shown] if shown else reasons)
