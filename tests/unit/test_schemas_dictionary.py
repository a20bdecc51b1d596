"""The reference pages are current, complete and true to the bytes."""

from pathlib import Path

import pytest

from schemas.dictionary import PAGES, layout, main, meaning, record_names
from schemas.events import LAYOUT, Kind, Mark, decode_record
from schemas.fields import FIELDS, LENGTHS, MARK_VALUES
from tests.unit.test_wire_vectors import vector

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run python -m schemas.dictionary"


def test_check_says_so() -> None:
    assert main(["--check"]) == 0


@pytest.mark.parametrize("kind", Kind)
def test_every_field_of_every_record_is_described(kind: Kind) -> None:
    for name in LAYOUT[kind][1]._fields:  # type: ignore[attr-defined]
        assert meaning(kind, name), name
    assert set(FIELDS[kind]) <= set(LAYOUT[kind][1]._fields), "descriptions of fields that are not there"  # type: ignore[attr-defined]
    assert set(MARK_VALUES) == {mark.name for mark in Mark}


@pytest.mark.parametrize("kind", Kind)
def test_the_documented_offsets_are_where_the_values_lie(kind: Kind) -> None:
    data, values = vector(kind.name.lower())
    for at, size, type_of, name in layout(LAYOUT[kind][0], record_names(kind)):
        if name in ("padding", "zero", "kind", "version") or name.endswith("_size"):
            continue
        poked = bytearray(data)
        poked[at] ^= 1
        other = decode_record(bytes(poked), 0, len(poked))
        changed = {field for field, value in other._asdict().items() if value != values[field]}
        assert changed == {name.split("[")[0]}, f"offset {at}, {size} bytes, {type_of}"


def test_no_cell_is_empty() -> None:
    for page in PAGES.values():
        assert "|  |" not in page() and "| |" not in page()
    assert len(LENGTHS) == 7
