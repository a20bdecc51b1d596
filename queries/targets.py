"""Which process a person means: by pid, by name, by path, by task_id; now, or at a moment.

4711        the living process with that pid (of the first pid namespace), else the most recent one
web1:4711   the same on one host, where the store holds several that had it; HOST: goes before a name as well, and can be a pattern
            or the first digits of a host_id (queries.hostnames)
make        the process that runs now under that name (comm), else the one that did, if there is but one
*/bin/make  by the path of its executable, with * ? and [...] as in a shell
0f3e…-…     a task_id
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import UUID

from queries import find as finding
from queries import hostnames, losses
from queries.find import Condition
from queries.history import label
from queries.quoting import quote_name
from queries.rows import NEWEST, Source, fetch
from queries.times import Moment, show_time
from schemas.errors import BadInput
from schemas.rows import EndKind, ImageRow

_HOST = re.compile(rf"({hostnames.HOST}):(\S.*)", re.DOTALL)
"""Names such as "tmux: server" are no host's."""
_PID_MAX = 4_194_304
_SHOWN_MAX = 8
"""Candidates that an ambiguous name lists."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a person wrote. One of tgid, task_id and name is set.

    text      as written
    host      which host, empty for any
    tgid      a pid
    task_id   the process itself
    name      a comm, or with a slash a path of an executable; may be a pattern
    since_ns  it was created at or after this
    """

    text: str
    host: str = ""
    tgid: int | None = None
    task_id: UUID | None = None
    name: str = ""
    since_ns: int | None = None

    def within(self, host: str = "", since_ns: int | None = None) -> "Target":
        """The same on a host (as of --host), created since. Raises BadInput where another host is named already."""
        if host and self.host not in ("", host):
            raise BadInput(f"two hosts are named, {_shown(self.host)} and {_shown(host)}", "leave one of them out")
        return replace(self, host=host or self.host, since_ns=since_ns)


class Candidate(NamedTuple):
    """The columns by which images are told apart."""

    host_id: UUID
    host: bytes
    boot_id: UUID
    start_boottime: int
    task_id: UUID
    tgid: int
    exec_id: int
    start: int
    begin: int
    duration: int
    end_kind: int
    comm: bytes


def parse_target(text: str) -> Target:
    """The target that the text names. Raises BadInput for an empty one or a number that is no pid."""
    if not text or "\0" in text:
        raise BadInput("no process is named", "give a pid, a name, a path or a task_id")
    try:
        if len(text) == 36:
            return Target(text, task_id=UUID(text))
    except ValueError:
        pass
    found = _HOST.fullmatch(text)
    host, rest = (found[1], found[2]) if found and not text.isdigit() else ("", text)
    if rest.isascii() and rest.isdigit():
        if not 0 < int(rest) <= _PID_MAX:
            raise BadInput(f"{rest} is no pid", f"pids go from 1 to {_PID_MAX}")
        return Target(text, host, tgid=int(rest))
    return Target(text, host, name=rest)


_BY_TGID = f"WHERE tgid = {{tgid:UInt32}} AND start < fromUnixTimestamp64Nano({{before:Int64}}) AND {{rest}} {NEWEST}"
_BY_ID = f"WHERE task_id = {{task_id:UUID}} {NEWEST}"
_FAR = (1 << 63) - 1
_NAMED_MAX = 1000
"""Images of one name that are looked at, those that began last first."""


def candidates(source: Source, target: Target, at: Moment | None) -> list[Candidate]:
    """Images that the target may mean: by pid or task_id all images of each process, by name the images that bore it (the living ones if
    there are any and no moment is asked for). A pid is one host's: raises BadInput where several had it."""
    if target.task_id is not None:
        return fetch(source, Candidate, _BY_ID, {"task_id": target.task_id})
    if target.tgid is not None:
        # Rows are chosen by what never changes about them, which a host's name is not.
        of_host = _the_host(source, target, target.tgid, at)
        rest, params = finding.joined([*of_host, *finding.created(target.since_ns)])
        where = _BY_TGID.replace("{rest}", rest)
        return fetch(source, Candidate, where, {**params, "before": at.end_ns if at else _FAR, "tgid": target.tgid})
    wanted = [finding.text("exe" if "/" in target.name else "comm", target.name), *_where(target)]
    if at is not None:
        return list(finding.find(source, Candidate, [*wanted, *finding.lived(at.begin_ns, at.end_ns)], _NAMED_MAX))
    living = list(finding.find(source, Candidate, [*wanted, finding.living()], _NAMED_MAX))
    return living or list(finding.find(source, Candidate, wanted, _NAMED_MAX))


def _where(target: Target) -> Iterator[Condition]:
    """On which hosts, and since when."""
    if target.host:
        yield hostnames.named(target.host)
    yield from finding.created(target.since_ns)


def _the_host(source: Source, target: Target, tgid: int, at: Moment | None) -> list[Condition]:
    """That a row is of the one host that is meant; nothing where the store holds no other. Raises BadInput where it can be several."""
    if not target.host and not hostnames.several(source):
        return []
    wanted = [Condition("tgid = {value#:UInt32}", {"value#": tgid}), *_where(target)]
    if at is not None:
        wanted += finding.lived(at.begin_ns, at.end_ns)
    found = hostnames.having(source, wanted, now_only=at is not None)
    if len(found) > 1:
        raise BadInput(f"pid {tgid} could be on {hostnames.listed(found)}", f"write HOST:{tgid}, or give --host")
    return [hostnames.among([host.host_id for host in found])]


def processes(images: Iterable[Candidate]) -> list[list[Candidate]]:
    """The images of each process in their order, the process that began last first."""
    by_task: dict[UUID, list[Candidate]] = {}
    for image in images:
        by_task.setdefault(image.task_id, []).append(image)
    grouped = [sorted(group, key=lambda image: image.exec_id) for group in by_task.values()]
    return sorted(grouped, key=lambda group: (group[0].start, group[0].task_id), reverse=True)


def _end(process: Sequence[Candidate]) -> int:
    """When the process ended, wall clock; far in the future while it lives."""
    last = process[-1]
    return _FAR if last.end_kind == EndKind.LIVING else max(last.begin + last.duration, last.start + 1)


def _living(process: Sequence[Candidate]) -> bool:
    return process[-1].end_kind == EndKind.LIVING


def image_at(process: Sequence[Candidate], at: Moment | None) -> Candidate:
    """The image that the process ran last within the moment; its newest one without a moment."""
    if at is None:
        return process[-1]
    begun = [image for image in process if image.begin < at.end_ns]
    return begun[-1] if begun else process[0]


def choose(target: Target, images: Iterable[Candidate], at: Moment | None) -> Candidate | None:
    """The one image that is meant, None if there is none. Raises BadInput where it could be several."""
    found = processes(images)
    if at is not None:
        found = [process for process in found if process[0].start < at.end_ns and _end(process) > at.begin_ns]
    living = [process for process in found if _living(process)]
    if target.name:
        chosen = living if living and at is None else found
    elif len({process[0].host_id for process in found}) > 1:
        chosen = found
    elif at is not None:
        # A minute can hold several that had the pid: the first one is what had it when the minute began.
        chosen = found[-1:]
    else:
        chosen = (living or found)[:1]
    if len(chosen) > 1:
        raise _ambiguous(target, chosen)
    return image_at(chosen[0], at) if chosen else None


def _ambiguous(target: Target, found: Sequence[Sequence[Candidate]]) -> BadInput:
    """The sentence that lists the candidates."""
    keys = hostnames.keys([hostnames.Host(process[-1].host_id, process[-1].host) for process in found])
    shown = []
    for process in found[:_SHOWN_MAX]:
        last = process[-1]
        prefix = f"{keys[last.host_id]}:" if len(keys) > 1 else ""
        shown.append(f"{prefix}{label(last.tgid, last.comm)} since {show_time(last.start, 0)}")
    more = f" and {len(found) - _SHOWN_MAX} more" if len(found) > _SHOWN_MAX else ""
    return BadInput(
        f"{_shown(target.text)} could be {', '.join(shown)}{more}",
        "give the pid, with HOST: before it or --at TIME where that is not enough, or the task_id",
    )


_WHOLE = f"""
WHERE host_id = {{host_id:UUID}} AND boot_id = {{boot_id:UUID}} AND start_boottime = {{start_boottime:UInt64}} AND tgid = {{tgid:UInt32}}
  AND exec_id = {{exec_id:UInt64}} {NEWEST}"""


def find_image(source: Source, target: Target, at: Moment | None = None) -> ImageRow:
    """The whole row of the image that is meant. Raises BadInput: nothing fits (and why that may be), or several do."""
    chosen = choose(target, candidates(source, target, at), at)
    if chosen is None:
        raise _never_was(source, target, at)
    return fetch(source, ImageRow, _WHOLE, chosen._asdict())[0]


def _never_was(source: Source, target: Target, at: Moment | None) -> BadInput:
    """The sentence that says what was not found, and what may hide it."""
    shown = _shown(target.name or target.text)
    what = "no process had pid" if target.tgid is not None else "no process has the task_id" if target.task_id else "no process ran as"
    if target.tgid is not None:
        shown = str(target.tgid)
    where = f" on {_shown(target.host)}" if target.host else ""
    when = f" at {show_time(at.begin_ns, 0)}" if at else f" that began after {show_time(target.since_ns, 0)}" if target.since_ns else ""
    return BadInput(f"{what} {shown}{where}{when}", losses.what_may_hide(source, hostnames.named(target.host) if target.host else None, at))


def assumed(source: Source, target: Target, image: ImageRow) -> str:
    """Which host was taken, for a target that names none while the store holds several; else empty."""
    if target.host or target.task_id is not None or not hostnames.several(source):
        return ""
    return f"{_shown(target.text)} is on host {quote_name(image.host)} (host_id {image.host_id})"


def _shown(text: str) -> str:
    """What a person wrote, in a sentence."""
    return quote_name(text.encode("utf-8", "surrogateescape"))
