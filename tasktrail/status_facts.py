"""What is known about the recording of this host: from ``run``, from the kernel, from the store."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from queries import losses
from queries.rows import Source, fetch
from queries.times import NS, show_duration, show_time
from schemas.errors import TasktrailError
from schemas.rows import LossRow
from tasktrail.settings import Settings

STALE_S = 15.0
"""A status that run has not written anew for so long is not believed; run writes every second."""
LOSSES_SHOWN = 5

Facts = dict[str, object]


@dataclass(slots=True)
class Standing:
    """All that is known.

    run         what run last said (the keys of status.json), empty if it never did
    run_alive   run said it just now, and its process is there
    kernel      counters of the recorder in the kernel, empty if they cannot be read
    kernel_says why they cannot, empty if they can
    store       sizes and counts, empty if the store cannot be read
    store_says  why it cannot
    losses      newest losses that touch chains
    """

    run: Facts = field(default_factory=dict)
    run_alive: bool = False
    kernel: Facts = field(default_factory=dict)
    kernel_says: str = ""
    store: Facts = field(default_factory=dict)
    store_says: str = ""
    losses: list[LossRow] = field(default_factory=list)


def read_run(directory: Path) -> Facts:
    """What run said last; empty where there is nothing that can be read."""
    try:
        said = json.loads((directory / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def number(facts: Mapping[str, object], key: str) -> float | None:
    """The value if it is a number."""
    value = facts.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_alive(run: Mapping[str, object], now_s: float, proc: Path = Path("/proc")) -> bool:
    """Whether the run that said this is there: it said it just now, and its pid is."""
    time_s, pid = number(run, "time"), number(run, "pid")
    return time_s is not None and pid is not None and abs(now_s - time_s) <= STALE_S and (proc / str(int(pid))).is_dir()


def process_cost(pid: int, proc: Path = Path("/proc")) -> Facts:
    """Memory and share of one CPU since its start of a process; empty if it is not there."""
    try:
        stat = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        uptime_s = float((proc / "uptime").read_text().split()[0])
    except (OSError, ValueError):
        return {}
    ticks = os.sysconf("SC_CLK_TCK")
    lived_s = max(uptime_s - int(stat[19]) / ticks, 1 / ticks)
    cpu_s = (int(stat[11]) + int(stat[12])) / ticks
    return {"memory_bytes": int(stat[21]) * os.sysconf("SC_PAGE_SIZE"), "cpu_seconds": cpu_s, "cpu_share": cpu_s / lived_s}


def read_kernel(settings: Settings) -> Facts:
    """Counters and costs of the pinned recorder. Raises TasktrailError where nothing is loaded or it cannot be read."""
    # Imported here: a machine that only reads has no producers' packages.
    from producers.recorder import Recorder

    spool = Path(settings.run_dir) / "snapshots"
    with Recorder(Path(settings.pin_dir), spool, Path(settings.state_dir)) as recorder:
        counters, ring = recorder.counters(), recorder.ring
        costs = {name: cost.run_time_ns / cost.run_count for name, cost in recorder.costs().items() if cost.run_count and cost.run_time_ns}
        return {
            "ring_id": recorder.ring_id,
            "ring_bytes": ring.size_bytes,
            "ring_fill": (ring.producer() - ring.consumer()) / ring.size_bytes,
            "lost": counters.lost,
            **counters._asdict(),
            "missing_pins": recorder.missing_pins(),
            "cost_ns": costs,
        }


_SIZES = """
SELECT sum(bytes_on_disk) FROM system.parts
WHERE active AND database = currentDatabase() AND table IN ('images', 'losses')"""
"""Nothing on a cluster, where these tables lie on several servers."""
_NEWEST = "SELECT max(begin), count() FROM images"
_LATEST_LOSSES = """
WHERE cause IN ('ring_full', 'skipped', 'no_recorder', 'log_hole', 'undecodable', 'rows_lost')
ORDER BY version DESC LIMIT 1 BY host_id, boot_id, ring_id, position, cause"""


def read_store(source: Source) -> tuple[Facts, list[LossRow]]:
    """Sizes, counts and the newest losses."""
    bytes_on_disk = source.query(_SIZES).rows[0][0]
    newest, rows = source.query(_NEWEST).rows[0]
    found = sorted(fetch(source, LossRow, _LATEST_LOSSES, {}, "losses"), key=lambda row: row.end, reverse=True)
    facts: Facts = {
        "bytes": bytes_on_disk,
        "rows": rows,
        "newest_ns": newest,
        "recording_since_ns": losses.recording_since(source),
        "losses": len(found),
    }
    return facts, found[:LOSSES_SHOWN]


def gather(settings: Settings, source: Source | None, store_says: str, now_s: float) -> Standing:
    """All of it; what cannot be read says why. ``source`` is None where the store cannot be opened, for the reason ``store_says``."""
    directory = Path(settings.store if "://" not in settings.store else settings.state_dir)
    standing = Standing(run=read_run(directory), store_says=store_says)
    standing.run_alive = is_alive(standing.run, now_s)
    try:
        standing.kernel = read_kernel(settings)
    except (TasktrailError, ImportError, OSError) as failure:
        standing.kernel_says = str(failure)
    if source is not None:
        try:
            standing.store, standing.losses = read_store(source)
        except TasktrailError as failure:
            standing.store_says = str(failure)
    return standing


def verdict(standing: Standing) -> tuple[bool, str]:
    """Whether this host is recorded and stored, and one sentence about it."""
    if standing.run_alive:
        if standing.run.get("recording") is False:
            return False, "not recording: the recorder's programs do not answer; a gap is open"
        message = standing.run.get("message")
        if message:
            return False, f"recording, but not storing: {message}"
        return True, "recording and storing"
    if standing.kernel:
        fill = number(standing.kernel, "ring_fill") or 0.0
        return False, f"the kernel records, but nobody stores: run is not there, the ring is {fill:.0%} full; start `tasktrail run`"
    if standing.kernel_says:
        return False, f"not recording: {standing.kernel_says}"
    return False, "not recording: start `tasktrail run`"


def size(size_bytes: float) -> str:
    """``512 B``, ``1.5 MiB``, …"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def lines(standing: Standing, settings: Settings, now_s: float) -> list[tuple[str, str]]:
    """Names and values for a person; what is not known is left out."""
    result = [("state", verdict(standing)[1])]
    run, kernel, store = standing.run if standing.run_alive else {}, standing.kernel, standing.store
    since_s = number(run, "recording_since")
    since_ns = int(since_s * NS) if since_s else (number(store, "recording_since_ns") or 0)
    if since_ns:
        result.append(("recording since", f"{show_time(int(since_ns), 0)}, {show_duration(int(now_s * NS - since_ns))} ago"))
    for key, shown in (("events_per_second", "events/s"), ("rows_per_second", "rows/s")):
        rate = number(run, key)
        if rate is not None:
            result.append((shown, f"{rate:.1f}"))
    counters = kernel or run
    living, lost = number(run, "living"), number(counters, "lost")
    if living is not None:
        result.append(("living processes", f"{living:.0f}"))
    if lost is not None:
        small = ", ".join(f"{word} {number(counters, key) or 0:.0f}" for key, word in _SMALL)
        result.append(("lost", f"{lost:.0f} ({small})"))
    fill, ring_bytes = number(counters, "ring_fill"), number(counters, "ring_bytes")
    if fill is not None and ring_bytes:
        result.append(("ring", f"{fill:.1%} of {size(ring_bytes)} filled"))
    lag = number(run, "lag_seconds")
    if lag is not None:
        result.append(("behind", show_duration(int(lag * NS))))
    return result + _costs(standing) + _store_lines(standing, settings)


_SMALL = (
    ("skipped", "skipped"),
    ("dropped_rename", "renames left out"),
    ("short_argv", "arguments cut short"),
    ("masked", "arguments masked"),
)


def _costs(standing: Standing) -> list[tuple[str, str]]:
    """What recording costs: the kernel's part where it counts it, and run's."""
    result = []
    cost = standing.kernel.get("cost_ns")
    if isinstance(cost, dict) and cost:
        result.append(("kernel cost", ", ".join(f"{name} {value / 1000:.1f} us" for name, value in sorted(cost.items()))))
    pid = number(standing.run, "pid")
    if standing.run_alive and pid:
        used = process_cost(int(pid))
        if used:
            share, memory = number(used, "cpu_share") or 0.0, number(used, "memory_bytes") or 0.0
            result.append(("run", f"pid {pid:.0f}, {size(memory)} of memory, {share:.1%} of one CPU"))
    return result


def _store_lines(standing: Standing, settings: Settings) -> list[tuple[str, str]]:
    """The store: where, how large, how to get in, and what is missing in it."""
    result = [("store", settings.store if not standing.store_says else f"{settings.store}: {standing.store_says}")]
    if standing.store:
        rows, used = number(standing.store, "rows") or 0, number(standing.store, "bytes") or 0
        result.append(("stored", f"{rows:.0f} rows" + (f", {size(used)} on disk" if used else "")))
    port = number(standing.run, "http_port")
    if standing.run_alive and port:
        place = Path(settings.store) / "credentials" / "reader.json"
        result.append(("other tools", f"http://127.0.0.1:{port:.0f} with the credentials in {place}"))
    result.extend(("missing", losses.in_words([row])) for row in standing.losses)
    return result
