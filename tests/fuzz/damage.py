"""How good bytes become hostile ones: blindly, and by what they mean."""

import re
import struct
from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

from schemas.batch import Batch, BatchKind, frame, frames
from schemas.errors import DecodeError
from schemas.events import LAYOUT, Kind

WIDTHS = {"B": 8, "H": 16, "I": 32, "Q": 64}
FRAMES = (0, 1, 7, 8, 0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def codes(layout: struct.Struct) -> list[str]:
    """The type of each value of the layout: B, H, I, Q, or a number and s."""
    out: list[str] = []
    for count, code in re.findall(r"(\d*)([BHIQsx])", layout.format):
        if code == "s":
            out.append(count + code)
        elif code != "x":
            out += [code] * int(count or 1)
    return out


CODES = {kind: codes(layout) for kind, (layout, _) in LAYOUT.items()}


def number(random: Random, bits: int, before: int = 0) -> int:
    """An integer of so many bits that programs trip over."""
    top = (1 << bits) - 1
    pick = random.randrange(6)
    if pick == 0:
        return random.choice((0, 1, 2, top, top - 1, top >> 1, (top >> 1) + 1, 127, 128, 255, 256)) & top
    if pick == 1:
        return before ^ 1 << random.randrange(bits)
    if pick == 2:
        return (before + random.choice((-1, 1, 8, -8, 1 << 20))) & top
    if pick == 3:
        return 1 << random.randrange(bits)
    return random.getrandbits(bits) if pick == 4 else random.getrandbits(random.randint(1, bits))


def flipped(random: Random, data: bytes) -> bytes:
    """Bits turned, bytes cut out, put in, repeated, or the end cut off."""
    raw = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        if not raw:
            break
        at, pick = random.randrange(len(raw)), random.randrange(8)
        if pick < 3:
            raw[at] ^= 1 << random.randrange(8)
        elif pick == 3:
            raw[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif pick == 4:
            del raw[at : at + random.randint(1, 64)]
        elif pick == 5:
            raw[at:at] = random.randbytes(random.randint(1, 64))
        elif pick == 6:
            raw[at:at] = raw[at : at + random.randint(1, 256)]
        else:
            del raw[at:]
    return bytes(raw)


def values_damaged(random: Random, records: list[bytes]) -> None:
    """One value of one record becomes another: any, or one that stands elsewhere, as when a process is its own creator."""
    at = random.randrange(len(records))
    record = records[at]
    kind = record[0] if record else 0
    if kind not in CODES or len(record) < LAYOUT[Kind(kind)][0].size:
        return
    layout, types = LAYOUT[Kind(kind)][0], CODES[Kind(kind)]
    values: list[Any] = list(layout.unpack_from(record))
    index = random.randrange(len(values))
    code = types[index]
    if code.endswith("s"):
        values[index] = random.randbytes(random.randint(0, int(code[:-1])))
    elif random.randrange(2):
        others = [one for one, its in enumerate(types) if its == code]
        values[index] = values[random.choice(others)]
    else:
        values[index] = number(random, WIDTHS[code], values[index])
    records[at] = layout.pack(*values) + record[layout.size :]


def spliced(random: Random, records: list[bytes]) -> None:
    """Who a record is about or who created it becomes a process that another record names."""
    one, other = random.randrange(len(records)), random.choice(records)
    record = records[one]
    if len(record) < 128 or len(other) < 48:
        return
    raw = bytearray(record)
    tgid, start = other[12:16], other[24:32]  # of the head that all records share
    if random.randrange(2) and raw[0] == Kind.FORK:
        creator_tgid_at = 48 + 6 * 8
        raw[48:56], raw[creator_tgid_at : creator_tgid_at + 4] = start, tgid
    else:
        raw[12:16], raw[24:32] = tgid, start
    records[one] = bytes(raw)


def reordered(random: Random, records: list[bytes]) -> None:
    """A record is repeated, lost, put elsewhere or cut."""
    at, pick = random.randrange(len(records)), random.randrange(4)
    if pick == 0:
        records.insert(random.randint(0, len(records)), records[at])
    elif pick == 1 and len(records) > 1:
        del records[at]
    elif pick == 2:
        records.insert(random.randint(0, len(records) - 1), records.pop(at))
    else:
        records[at] = flipped(random, records[at])


STEPS = (values_damaged, values_damaged, values_damaged, spliced, spliced, reordered)


def body_damaged(random: Random, body: bytes) -> bytes:
    """A body whose framing is good (mostly) and whose records lie."""
    try:
        records = [body[at : at + size] for at, size in frames(body)]
    except DecodeError:
        records = []
    if not records:
        return random.randbytes(random.randint(0, 200))
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        random.choice(STEPS)(random, records)
    raw = b"".join(map(frame, records))
    if not random.randrange(8):
        at = random.randrange(0, max(1, len(raw) - 8), 8)
        raw = raw[:at] + struct.pack("<I", random.choice(FRAMES)) + raw[at + 4 :]
    return raw


NUMBERS = {"ring_id": 64, "start": 64, "boottime_ns": 64, "realtime_ns": 64, "lost": 64, "skipped": 32}


def batch_damaged(random: Random, batch: Batch) -> Batch:
    """A batch that can be decoded, and whose header, body or both lie."""
    pick = random.randrange(4)
    if pick != 0:
        batch = batch._replace(body=body_damaged(random, batch.body))
    if pick < 2:
        name = random.choice(tuple(NUMBERS))
        lie: dict[str, Any] = {name: number(random, NUMBERS[name], getattr(batch, name)), "drained": bool(random.randrange(2))}
        batch = batch._replace(**lie)
    if not random.randrange(16):
        batch = batch._replace(kind=random.choice(tuple(BatchKind)))
    if batch.kind == BatchKind.SNAPSHOT:
        parts = number(random, 16) if not random.randrange(4) else batch.parts
        return batch._replace(parts=max(1, parts), part=random.randrange(max(1, parts)), end=batch.end & (1 << 64) - 1)
    start = min(batch.start, (1 << 64) - 1 - len(batch.body))
    return batch._replace(start=start, end=start + len(batch.body), part=0, parts=1)


NUMBERS_OUT_OF_PLACE = (0, -1, 1, 1 << 63, 1 << 64, 1 << 200, 1.5, float("nan"), float("inf"))
JUNK: Sequence[object] = (None, True, False, *NUMBERS_OUT_OF_PLACE, "", "x", "\u0000", "\u20ac", [], [[]], {}, {"a": 1})


def tree_damaged(random: Random, tree: Any) -> Any:
    """JSON with something in it exchanged for something else, left out or repeated; the tree itself is changed."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = random.choice(keys)
            child = node[key]
            if isinstance(child, dict | list) and child and random.randrange(8):
                node = child
                continue
            pick = random.randrange(6)
            if pick == 0:
                del node[key]
            elif pick == 1 and isinstance(node, list):
                node.insert(random.randint(0, len(node)), child)
            elif pick == 2 and type(child) is int:
                node[key] = number(random, 64, child & (1 << 64) - 1)
            elif pick == 3 and isinstance(node, list):
                node[key] = deepcopy(node[random.randrange(len(node))])
            elif pick == 4 and type(child) is int:
                node[key] = random.randint(-2, 12)
            else:
                node[key] = deepcopy(random.choice(JUNK))  # a later case may change it
            break
    return tree
