"""SQL to copy from: questions people ask, each with a name, a sentence and the statement. A test runs every one of them.

current_images has one row per program image, the newest; its columns are in docs/data-dictionary.md. Times are UTC; add
``SETTINGS session_timezone = 'Europe/Berlin'`` or use toTimeZone() for another.
"""

from typing import NamedTuple


class Statement(NamedTuple):
    """A question. Parameters in braces are ClickHouse's: {name:Type}."""

    name: str
    asks: str
    sql: str


STATEMENTS: tuple[Statement, ...] = (
    Statement(
        "descendants",
        "everything that one process ever started, also through processes that have ended",
        "SELECT begin, tgid, comm, argv, ended FROM current_images WHERE has(ancestor_ids, {task_id:UUID}) ORDER BY begin",
    ),
    Statement(
        "under",
        "which hosts ran a program under another one",
        "SELECT host, count(), min(begin), max(begin) FROM current_images"
        " WHERE kind = 'exec' AND comm = {comm:String} AND has(chain_comm, {under:String}) GROUP BY host ORDER BY host",
    ),
    Statement(
        "at",
        "what ran under a pid at a moment",
        "SELECT host, task_id, exec_id, comm, exe, begin, ended FROM current_images"
        " WHERE tgid = {tgid:UInt32} AND begin <= {at:DateTime64(3)} AND (ended IS NULL OR ended > {at:DateTime64(3)})",
    ),
    Statement(
        "busiest",
        "programs by how often they ran in the last hour",
        "SELECT exe, count() AS runs, uniqExact(task_id) AS processes FROM current_images"
        " WHERE kind = 'exec' AND begin > now() - INTERVAL 1 HOUR GROUP BY exe ORDER BY runs DESC, exe LIMIT 20",
    ),
    Statement(
        "new_programs",
        "executables that ran in the last day and never before",
        "SELECT exe, min(begin) AS first, argMin(host, (begin, host)) AS host FROM current_images"
        " WHERE kind IN ('exec', 'seen') GROUP BY exe HAVING first > now() - INTERVAL 1 DAY ORDER BY first",
    ),
    Statement(
        "parents_of",
        "by what a program is usually started",
        "SELECT chain_comm[-2] AS starter, count() AS times FROM current_images"
        " WHERE kind = 'exec' AND comm = {comm:String} GROUP BY starter ORDER BY times DESC, starter",
    ),
    Statement(
        "crashes",
        "programs killed by a signal",
        "SELECT begin, tgid, comm, exit_signal, core_dumped, arrayStringConcat(chain_comm, ' > ') AS chain"
        " FROM current_images WHERE end_kind = 'exit' AND exit_signal > 0 ORDER BY begin DESC LIMIT 100",
    ),
    Statement(
        "reparented",
        "living processes whose creator has ended: daemons and orphans",
        "SELECT tgid, comm, creator_tgid, start FROM current_images WHERE end_kind = 'living' AND creator_id NOT IN"
        " (SELECT task_id FROM current_images WHERE end_kind = 'living') AND tgid > 2 ORDER BY start",
    ),
    Statement(
        "deleted",
        "programs whose file is gone, or never was one",
        "SELECT begin, tgid, comm, exe, argv FROM current_images"
        " WHERE hasAny(flags, ['exe_deleted', 'exe_pseudo']) AND kind IN ('exec', 'seen') ORDER BY begin DESC LIMIT 100",
    ),
    Statement(
        "privilege",
        "programs that ran as root below a login of somebody else",
        "SELECT begin, host, login_user, comm, argv, arrayStringConcat(chain_comm, ' > ') AS chain FROM current_images"
        " WHERE kind = 'exec' AND euid = 0 AND loginuid NOT IN (0, 4294967295) ORDER BY begin DESC LIMIT 100",
    ),
    Statement(
        "cpu",
        "CPU time by program",
        "SELECT exe, round(sum(utime + stime) / 1e9, 3) AS cpu_s, count() AS processes FROM current_images"
        " WHERE end_kind = 'exit' GROUP BY exe ORDER BY cpu_s DESC, exe LIMIT 20",
    ),
    Statement(
        "losses",
        "what is missing, and when",
        "SELECT host, cause, amount, begin, end, detail FROM current_losses ORDER BY begin",
    ),
    Statement(
        "creators_recursive",
        "ancestors by following creators, farther than the 64 that a row keeps",
        "WITH RECURSIVE up AS (SELECT task_id, creator_id, tgid, comm, 0 AS depth FROM current_images WHERE task_id = {task_id:UUID}"
        " UNION ALL SELECT i.task_id, i.creator_id, i.tgid, i.comm, up.depth + 1"
        " FROM current_images AS i JOIN up ON i.task_id = up.creator_id"
        " WHERE up.depth < 100) SELECT DISTINCT depth, tgid, comm FROM up ORDER BY depth",
    ),
)
