"""Writes tests/unit/btf: of each kernel's own type information what the recorder asks of it, and the offsets that a compiler finds there.

The type information is cut out of the kernel's image. `bpftool` writes it as C, and gcc says where each member lies: a second way to
every number, which shares nothing with the recorder's. Run `python -m tests.kernels.types` when the C text asks for another member.
"""

import json
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from producers.bpf import source
from schemas.errors import Unavailable
from tests.kernels import images, packages
from tests.kernels.packages import run

TARGET = images.PROJECT / "tests/unit/btf"
_BEGIN = bytes.fromhex("9feb010018000000")
_HEADER = struct.Struct("<HBBIIIII")
_INTEGER, _POINTER, _STRUCT, _UNION, _TYPEDEF, _FUNCTION = 1, 2, 4, 5, 8, 13
_QUALIFIERS = (_TYPEDEF, 9, 10, 11, 18)
_EXTRA = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def asked() -> set[tuple[str, str]]:
    """Structs and members that the C text asks for; the member is empty where only the size is."""
    text = source.read_text()
    members = set(re.findall(r"\bOFFSET\((\w+), ([\w.]+)\)", text)) | set(re.findall(r"\bBITFIELD\((\w+), (\w+)\)", text))
    sizes = {(name, "") for name in re.findall(r"\bSIZEOF\((\w+)\)", text)}
    return members | sizes | {("dentry", "d_parent"), ("dentry", "d_name.name")}


def _lz4(data: bytes) -> bytes:
    from lz4 import block  # type: ignore[import-untyped]  # comes with the store's client

    at, parts = 4, []
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        try:
            parts.append(block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=8 << 20))
        except block.LZ4BlockError:
            break
        at += 4 + size
    return b"".join(parts)


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dqc"], input=data, capture_output=True, check=False).stdout


def _gzip(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data)
    except zlib.error:
        return b""


_PACKED = {b"\x02\x21\x4c\x18": _lz4, b"\x28\xb5\x2f\xfd": _zstd, b"\x1f\x8b\x08": _gzip}


def _cut(data: bytes) -> bytes:
    """The type information in an unpacked kernel, empty if there is none."""
    at = data.find(_BEGIN)
    while at >= 0:
        *_, types_at, types_size, strings_at, strings_size = _HEADER.unpack_from(data, at)
        if types_at == 0 and strings_at == types_size > 1 << 20:
            return data[at : at + 24 + strings_at + strings_size]
        at = data.find(_BEGIN, at + 1)
    return b""


def of_image(image: Path) -> bytes:
    """The BTF of a kernel image, however it is packed. Raises Unavailable when none is found."""
    data = image.read_bytes()
    if found := _cut(data):
        return found
    for magic, unpack in _PACKED.items():
        for match in re.finditer(re.escape(magic), data):
            if found := _cut(unpack(data[match.start() :])):
                return found
    raise Unavailable(f"no type information was found in {image.name}")


class _Type(NamedTuple):
    name: str
    info: int
    value: int
    extra: bytes
    members: tuple[tuple[str, int, int], ...]

    @property
    def kind(self) -> int:
        return self.info >> 24 & 31


def _types(data: bytes) -> list[_Type]:
    """All types in order of their ids; the first stands for void."""
    _, _, _, header, types_at, types_size, strings_at, _ = _HEADER.unpack_from(data)
    strings = header + strings_at

    def name(offset: int) -> str:
        return data[strings + offset : data.index(b"\0", strings + offset)].decode()

    found = [_Type("", 0, 0, b"", ())]
    at, end = header + types_at, header + types_at + types_size
    while at < end:
        named, info, value = struct.unpack_from("<III", data, at)
        kind, number = info >> 24 & 31, info & 0xFFFF
        at += 12
        extra = data[at : at + _EXTRA.get(kind, 0)]
        members: list[tuple[str, int, int]] = []
        if kind in (_STRUCT, _UNION):
            for index in range(number):
                member, type_id, where = struct.unpack_from("<III", data, at + 12 * index)
                members.append((name(member), type_id, where))
        elif kind == _FUNCTION:
            members = [("", 0, 0)] * number
        at += len(extra) + _EACH.get(kind, 0) * number
        found.append(_Type(name(named), info, value, extra, tuple(members)))
    return found


class _Reduced:
    """Types that are kept, with new ids: only asked members, and only the types on the way to them."""

    def __init__(self, types: list[_Type]) -> None:
        self._all = types
        self._kept: dict[int, int] = {}
        self._bodies: list[bytes] = []
        self._strings = b"\0"
        self._structs = {one.name: number for number, one in reversed(list(enumerate(types))) if one.kind == _STRUCT}
        self._wanted: dict[int, set[tuple[str, int, int]]] = {}

    def _plain(self, type_id: int) -> int:
        while self._all[type_id].kind in _QUALIFIERS:
            type_id = self._all[type_id].value
        return type_id

    def _find(self, type_id: int, part: str) -> Iterator[tuple[int, tuple[str, int, int]]]:
        """The members on the way to the named one, through anonymous structs and unions: (their struct, member)."""
        for member in self._all[type_id].members:
            if member[0] == part:
                yield type_id, member
                return
            inner = self._plain(member[1])
            if not member[0] and self._all[inner].kind in (_STRUCT, _UNION) and (way := list(self._find(inner, part))):
                yield type_id, member
                yield from way
                return

    def want(self, struct_name: str, path: str) -> None:
        """Keeps the member that the path leads to, if the kernel has it."""
        type_id = self._structs.get(struct_name)
        if type_id is None:
            return
        self._wanted.setdefault(type_id, set())
        for part in path.split(".") if path else ():
            way = list(self._find(type_id, part))
            if not way:
                return
            for owner, member in way:
                self._wanted.setdefault(owner, set()).add(member)
            type_id = self._plain(way[-1][1][1])

    def _text(self, name: str) -> int:
        if not name:
            return 0
        self._strings += name.encode() + b"\0"
        return len(self._strings) - len(name) - 1

    def keep(self, type_id: int) -> int:
        """The new id of a type; 0, void, for one that nobody asks about."""
        one = self._all[type_id]
        aggregate = one.kind in (_STRUCT, _UNION)
        if (aggregate and type_id not in self._wanted) or (not aggregate and one.kind not in (*_QUALIFIERS, _INTEGER, _POINTER, _FUNCTION)):
            return 0
        if type_id in self._kept:
            return self._kept[type_id]
        number = self._kept[type_id] = len(self._bodies) + 1
        self._bodies.append(b"")
        members = [member for member in one.members if member in self._wanted[type_id]] if aggregate else list(one.members)
        value = one.value if aggregate or one.kind == _INTEGER else self.keep(one.value)
        body = struct.pack("<III", self._text(one.name), one.info & ~0xFFFF | len(members), value) + one.extra
        for name, member_type, where in members:
            kept = self.keep(member_type)
            body += struct.pack("<III", self._text(name), kept, where) if aggregate else struct.pack("<II", 0, 0)
        self._bodies[number - 1] = body
        return number

    def written(self) -> bytes:
        """All that was wanted, and the tracepoints, as BTF."""
        tracepoints = {f"btf_trace_{name}" for _, name in source.TRACEPOINTS.values()}
        for type_id, one in enumerate(self._all):
            if type_id in self._wanted or (one.kind == _TYPEDEF and one.name in tracepoints):
                self.keep(type_id)
        body = b"".join(self._bodies)
        return _HEADER.pack(0xEB9F, 1, 0, 24, 0, len(body), len(body), len(self._strings)) + body + self._strings


def reduced(data: bytes) -> bytes:
    """BTF with what the recorder asks for and nothing else."""
    smaller = _Reduced(_types(data))
    for struct_name, path in sorted(asked()):
        smaller.want(struct_name, path)
    return smaller.written()


def compiled(data: bytes) -> dict[str, int]:
    """Offsets, bits and sizes as gcc finds them in the C that bpftool writes: "struct.member" and "struct" → number.

    What the kernel lacks is left out, member by member.
    """
    flags = set(re.findall(r"\bBITFIELD\((\w+), (\w+)\)", source.read_text()))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "btf").write_bytes(data)
        (directory / "types.h").write_text(run("bpftool", "btf", "dump", "file", directory / "btf", "format", "c"))
        lines = []
        for struct_name, path in sorted(asked()):
            label = f"{struct_name}.{path}" if path else struct_name
            what = f"__builtin_offsetof(struct {struct_name}, {path})" if path else f"sizeof(struct {struct_name})"
            line = f'P("{label} %lu\\n", (unsigned long){what});'
            if (struct_name, path) in flags:
                line = f"{{ static struct {struct_name} it; it.{path} = 1; for (unsigned long i = 0; i < 8 * sizeof it; i++) "
                line += f'if (((unsigned char *)&it)[i / 8] >> (i % 8) & 1) P("{label} %lu\\n", i); }}'
            if _compiles(directory, line):
                lines.append(line)
        (directory / "all.c").write_text(_PROGRAM + "\n".join(lines) + "\n}\n")
        run("gcc", "-w", "-o", "all", "all.c", cwd=directory)
        said = [line.split() for line in run(directory / "all").splitlines()]
        return {label: int(number) for label, number in said}


_PROGRAM = '#include "types.h"\nextern int printf(const char *, ...);\n#define P printf\nint main(void) {\n'


def _compiles(directory: Path, line: str) -> bool:
    (directory / "one.c").write_text(f"{_PROGRAM}{line}\n}}\n")
    return subprocess.run(["gcc", "-w", "-fsyntax-only", "one.c"], cwd=directory, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Writes both files of every kernel that is to be had."""
    TARGET.mkdir(exist_ok=True)
    for kernel in packages.KERNELS:
        try:
            files = packages.fetch(kernel)
            data = of_image(files.image)
        except Unavailable as failure:
            print(f"{kernel.name}: {failure.problem}")
            continue
        small, numbers = reduced(data), compiled(data)
        (TARGET / f"{files.release}.btf").write_bytes(small)
        (TARGET / f"{files.release}.json").write_text(json.dumps(numbers, indent=1) + "\n")
        print(f"{kernel.name}: {files.package}: {len(data)} bytes of types, {len(small)} kept, {len(numbers)} numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
