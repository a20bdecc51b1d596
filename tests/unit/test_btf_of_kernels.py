"""Every offset that the C text asks for, in the type information of other kernels, against what a compiler found there.

The files in btf/ are cut out of Debian's kernels: of each the types that the recorder asks for, as BTF, and the numbers that gcc gives for
the C that bpftool writes of the whole. `python -m tests.kernels.types` makes them anew.
"""

import json
import re
from pathlib import Path

import pytest

from producers.bpf import source
from producers.bpf.btf import Btf

KERNELS = sorted((Path(__file__).parent / "btf").glob("*.btf"))
EVERY_KERNEL = pytest.mark.parametrize("path", KERNELS, ids=[path.stem for path in KERNELS])


def numbers(path: Path) -> dict[str, int]:
    """What the compiler found: "struct.member" or "struct" → bytes, or bits for a bit field."""
    found = json.loads(path.with_suffix(".json").read_text())
    assert isinstance(found, dict)
    return found


def test_the_kernels_that_people_use_are_there() -> None:
    assert {re.match(r"\d+\.\d+", path.stem)[0] for path in KERNELS} >= {"5.10", "6.1", "6.12"}  # type: ignore[index]
    assert len([path for path in KERNELS if path.stem.endswith("arm64")]) >= 2


@EVERY_KERNEL
def test_every_number_in_the_text_is_the_compilers(path: Path) -> None:
    types, right = Btf(path.read_bytes()), numbers(path)
    text = source.read_text()
    offsets = set(re.findall(r"\bOFFSET\((\w+), ([\w.]+)\)", text))
    bits = set(re.findall(r"\bBITFIELD\((\w+), (\w+)\)", text))
    sizes = set(re.findall(r"\bSIZEOF\((\w+)\)", text))
    assert len(offsets) > 60 and bits and sizes
    assert {f"{one}.{member}" for one, member in offsets | bits} <= set(right), "run `python -m tests.kernels.types`"
    for one, member in sorted(offsets):
        assert source.fill(f"OFFSET({one}, {member})", types) == str(right[f"{one}.{member}"]), (one, member)
    for one, member in sorted(bits):
        bit = right[f"{one}.{member}"]
        assert source.fill(f"BITFIELD({one}, {member})", types) == f"{bit // 8}, {bit % 8}", (one, member)
    for one in sorted(sizes):
        assert source.fill(f"SIZEOF({one})", types) == str(right[one])


@EVERY_KERNEL
def test_the_whole_text_is_filled(path: Path) -> None:
    program = source.generate(Btf(path.read_bytes()), source.Settings())
    assert not re.search(r"\b(OFFSET|SIZEOF|BITFIELD)\(", program.text)
    assert set(program.types) == {"on_fork", "on_exec", "on_exit", "on_rename"}


def test_kernels_differ() -> None:
    """A test that compares one layout with itself would say nothing about the others."""
    assert len({tuple(sorted(numbers(path).items())) for path in KERNELS}) == len(KERNELS)
