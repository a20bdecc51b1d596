"""Recordings with the rows that they must lead to.

Each ``NAME.tt`` is a recording (batches one after another), ``NAME.jsonl`` the rows that remain in the store, one a line. A bug
that was found becomes a recording first. ``CORPUS_BLESS=1 pytest tests/corpus`` writes the rows anew: read the diff.
"""

import json
from os import environ
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from producers.recording import read_recording
from schemas.batch import Batch, BatchKind, frames
from schemas.rows import ImageRow, LossRow, Row
from tests.sim.oracle import store_of
from tests.sim.scenario import joined

HERE = Path(__file__).parent
RECORDINGS = sorted(HERE.glob("*.tt"))
BLESS = environ.get("CORPUS_BLESS") == "1"


def plain(value: Any) -> Any:
    """A value as JSON has it; bytes that are not UTF-8 become lone surrogates, which read back as the same bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return int(value)


def text_of(rows: list[Row]) -> str:
    """The rows that remain in the store, in order of their keys, one a line; what is 0 or empty is left out."""
    store = store_of(rows)
    out = []
    for kind, kept in (("image", store.images), ("loss", store.losses)):
        for key in sorted(kept, key=str):
            row: ImageRow | LossRow = kept[key]  # type: ignore[index]
            out.append(json.dumps({"row": kind, **{name: plain(value) for name, value in row._asdict().items() if value}}))
    return "\n".join(out) + "\n"


def single_records(batches: list[Batch]) -> list[Batch]:
    """The same log with a batch for each record."""
    out: list[Batch] = []
    for batch in batches:
        if batch.kind == BatchKind.SNAPSHOT:
            out.append(batch)
            continue
        ends = [at + (size + 7 & ~7) for at, size in frames(batch.body)]
        for start, end in zip([0, *ends], [*ends, len(batch.body)], strict=True):
            if start < end:
                out.append(batch._replace(start=batch.start + start, end=batch.start + end, body=batch.body[start:end], drained=False))
    return out


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recordings_lead_to_their_rows(path: Path) -> None:
    text = text_of(joined(read_recording(path))[0])
    expected = path.with_suffix(".jsonl")
    if BLESS:
        expected.write_text(text, "utf-8")
    wanted, got = expected.read_text("utf-8").splitlines(), text.splitlines()
    missing = [line for line in wanted if line not in got]
    new = [line for line in got if line not in wanted]
    assert not missing and not new, "\n".join(["missing:", *missing[:5], "instead:", *new[:5]])


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recordings_may_be_cut_anywhere(path: Path) -> None:
    batches = list(read_recording(path))
    same = text_of(joined(single_records(batches))[0]) == text_of(joined(batches)[0])
    assert same


def test_there_are_recordings_and_each_has_its_rows() -> None:
    assert RECORDINGS
    assert {path.stem for path in RECORDINGS} == {path.stem for path in HERE.glob("*.jsonl")}
