"""Batches and recordings as objects for JSON lines: one per batch header, one per record, raw values as the kernel programs wrote them."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from queries.jsonlines import as_object
from queries.times import iso_time
from schemas.batch import HEADER, Batch, batch_size, decode_batch, frames
from schemas.errors import BadInput, DecodeError
from schemas.events import LAYOUT, Flag, Mark, MarkRecord, Record, decode_record

KINDS = {value_class: kind.name.lower() for kind, (_, value_class) in LAYOUT.items()}


def batches(file: BinaryIO, name: str) -> Iterator[Batch]:
    """The batches of a file, one after another. Raises DecodeError where it ends within one or holds something else."""
    at = 0
    while head := file.read(HEADER.size):
        try:
            rest = batch_size(head) - HEADER.size
            yield decode_batch(head + file.read(rest))
        except DecodeError as bad:
            cure = bad.cure or "what stands before it is good; the rest was cut off or is no recording"
            raise DecodeError(f"{name}, byte {at}: {bad.problem}", cure) from None
        at += HEADER.size + rest


def batch_object(batch: Batch) -> dict[str, object]:
    """A batch's header."""
    shown = batch._asdict() | {"kind": batch.kind.name.lower(), "body_bytes": len(batch.body), "realtime": iso_time(batch.realtime_ns)}
    del shown["body"]
    return as_object([("record", "batch"), *shown.items()])


def flag_names(flags: int) -> list[str]:
    """Names of the bits, in small letters; those without a name as numbers."""
    known = [flag.name.lower() for flag in Flag if flags & flag and flag.name]
    rest = flags & ~int(sum(Flag))
    return [*known, str(rest)] if rest else known


def record_object(record: Record, position: int) -> dict[str, object]:
    """A record, and where in the ring (of a snapshot: in its body) it lies."""
    pairs: list[tuple[str, object]] = [("record", KINDS[type(record)]), ("position", position)]
    for name, value in record._asdict().items():
        if name == "flags":
            pairs.append((name, flag_names(value)))
        elif name == "mark" and isinstance(record, MarkRecord):
            pairs.append((name, _name(Mark, value)))
        else:
            pairs.append((name, value))
    return as_object(pairs)


def _name(kinds: type[Enum], value: int) -> object:
    try:
        return str(kinds(value).name).lower()
    except ValueError:
        return value


def record_objects(batch: Batch) -> Iterator[dict[str, object]]:
    """The batch's records; one that cannot be read becomes an object of record "undecodable" that says why."""
    try:
        for at, size in frames(batch.body):
            try:
                yield record_object(decode_record(batch.body, at, size), batch.start + at)
            except DecodeError as bad:
                raw = batch.body[at : at + size]
                yield {"record": "undecodable", "position": batch.start + at, "says": str(bad), "bytes_hex": raw.hex()}
    except DecodeError as bad:
        yield {"record": "undecodable", "position": batch.start, "says": str(bad)}


def open_recording(path: str) -> BinaryIO:
    """The file, for reading. Raises BadInput."""
    try:
        return Path(path).open("rb")
    except OSError as failure:
        raise BadInput(f"{path} cannot be read: {failure.strerror}", "give a file made by tasktrail record dump") from None
