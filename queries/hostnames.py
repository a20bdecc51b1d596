"""Which hosts a person means, and how hosts are told apart.

    web-17      by name; also a pattern with * ? and [...]
    0f3e51aa    by the first eight or more digits of a host_id, for hosts whose name is not the only one of its kind
    0f3e51aa-…  by a whole host_id

A name is only for showing: two hosts can bear the same, one host can change it, and it can hold any bytes.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from queries import find as finding
from queries.find import Condition
from queries.quoting import quote_name
from queries.rows import Source

HOST = r"[A-Za-z0-9*?\[][A-Za-z0-9._*?\[\]!-]*"
"""What may stand before a colon in HOST:PID."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ID_PART = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}")
DIGITS_MIN = 8
"""Digits of a host_id that are shown, and that may be given, at least."""
SHOWN_MAX = 8
"""Hosts that one sentence names."""


class Host(NamedTuple):
    """A host and the name that it bore last."""

    host_id: UUID
    name: bytes


def named(text: str) -> Condition:
    """A row is of a host that the text means."""
    if len(text) == 36:
        try:
            return among([UUID(text)])
        except ValueError:
            pass
    name = finding.text("host", text)
    if not _ID_PART.fullmatch(text.lower()):
        return name
    sql = f"({name.sql} OR startsWith(toString(host_id), {{part#:String}}))"
    return Condition(sql, {**name.params, "part#": text.lower()}, sql)


def among(host_ids: Iterable[UUID]) -> Condition:
    """A row is of one of these hosts."""
    sql = "host_id IN ({host#:Array(UUID)})"
    return Condition(sql, {"host#": sorted(host_ids)}, sql)


def several(source: Source) -> bool:
    """Whether the store holds more than one host. Told by the table's metadata: no row is read."""
    rows = source.query("SELECT min(host_id) != max(host_id) FROM images").rows
    return bool(rows and rows[0][0])


def having(source: Source, conditions: Sequence[Condition], now_only: bool = False) -> list[Host]:
    """Hosts with an image that fits, those whose process began last first; one more than are shown at most.

    ``now_only``: the image's newest row must fit, which matters where conditions are on columns that change.
    """
    where, params = finding.joined(conditions)
    rows = finding.newest(where) if now_only else f"FROM images WHERE {where}"
    sql = f"SELECT host_id, argMax(host, version) {rows} GROUP BY host_id ORDER BY max(start) DESC, host_id LIMIT {SHOWN_MAX + 1}"
    return [Host(*row) for row in source.query(sql, params).rows]


def keys(hosts: Iterable[Host]) -> dict[UUID, str]:
    """What a person can write before a colon for each host: its name where no other one here has it, else digits of its host_id."""
    known = dict(hosts)
    names = list(known.values())
    length = DIGITS_MIN
    while len({str(host_id)[:length] for host_id in known}) < len(known):
        length += 1
    return {
        host_id: name.decode() if _usable(name) and names.count(name) == 1 else str(host_id)[:length].rstrip("-")
        for host_id, name in known.items()
    }


def _usable(name: bytes) -> bool:
    """Whether the name means itself where a host is asked for."""
    return name.isascii() and bool(_PLAIN.fullmatch(name.decode()))


def listed(hosts: Sequence[Host]) -> str:
    """``web1, db2, 0f3e51aa ('a name') and more``: hosts for a sentence."""
    found = keys(hosts)
    shown = []
    for host in hosts[:SHOWN_MAX]:
        key = found[host.host_id]
        shown.append(key if key.encode() == host.name else f"{key} ({quote_name(host.name)})")
    return ", ".join(shown) + (" and more" if len(hosts) > SHOWN_MAX else "")
