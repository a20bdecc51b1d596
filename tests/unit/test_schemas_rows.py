"""The vocabulary of rows is one: classes, columns and enums agree."""

import re
from enum import IntEnum

import pytest

from schemas.columns import ALIASES, HOSTS, IMAGES, LOSSES, Column
from schemas.events import Flag, Mark
from schemas.rows import EndKind, HostRow, ImageKind, ImageRow, LossCause, LossRow


@pytest.mark.parametrize(("row", "columns"), [(ImageRow, IMAGES), (LossRow, LOSSES), (HostRow, HOSTS)])
def test_columns_are_the_fields_in_order(row: type[ImageRow] | type[LossRow] | type[HostRow], columns: tuple[Column, ...]) -> None:
    assert tuple(column.name for column in columns) == row._fields


def test_every_column_says_what_it_means_and_whence_it_comes() -> None:
    for column in (*IMAGES, *LOSSES, *HOSTS, *ALIASES):
        assert column.says and column.source, column.name
        assert not column.says.endswith("."), column.name


def test_names_are_unique() -> None:
    names = [column.name for column in (*IMAGES, *ALIASES)]
    assert len(set(names)) == len(names)


def test_types_are_of_the_store() -> None:
    known = r"UUID|LowCardinality\(String\)|String|Bool|UInt(8|16|32|64)|DateTime64\(9, 'UTC'\)|DateTime\('UTC'\)|Enum8\(.*\)"
    for column in (*IMAGES, *LOSSES, *HOSTS, *ALIASES):
        inner = re.sub(r"^(Array|Nullable)\((.*)\)$", r"\2", column.type)
        assert re.fullmatch(known, inner), f"{column.name}: {column.type}"


@pytest.mark.parametrize(("kinds", "name"), [(ImageKind, "kind"), (EndKind, "end_kind"), (LossCause, "cause")])
def test_enums_are_stored_by_their_names(kinds: type[IntEnum], name: str) -> None:
    column = next(column for column in (*IMAGES, *LOSSES) if column.name == name)
    assert dict(re.findall(r"'(\w+)' = (\d+)", column.type)) == {kind.name.lower(): str(kind.value) for kind in kinds}


def test_flags_are_single_bits_that_never_move() -> None:
    assert [flag.value for flag in Flag] == [1 << bit for bit in range(22)]
    assert [mark.value for mark in Mark] == [1, 2, 3, 4, 5]
