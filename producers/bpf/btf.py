"""The kernel's own description of its types (BTF), read as far as the recorder needs it: offsets, sizes, tracepoint arguments.

Format: Documentation/bpf/btf.rst of the kernel. Everything is little-endian here.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Unavailable

KERNEL = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC_PROTO, _TYPE_TAG = 1, 2, 3, 4, 5, 8, 9, 10, 11, 13, 18
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes after the common part of a type, by kind: INT, ARRAY, VAR, DECL_TAG."""
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""Bytes of each of its members: STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64."""
_LAST_KIND = 19


class Member(NamedTuple):
    """Where a struct's member lies.

    bit      offset from the struct's begin in bits
    bits     width in bits if it is a bit field, else 0
    type_id  its type
    """

    bit: int
    bits: int
    type_id: int


class Btf:
    """The types of one kernel."""

    def __init__(self, data: bytes) -> None:
        """Reads ``data``; raises Unavailable when it is no BTF of a form known here."""
        magic, _, _, header, types_at, types_size, strings_at, strings_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise Unavailable("the kernel's type information does not begin as BTF does")
        self._types = data[header + types_at : header + types_at + types_size]
        self._strings = data[header + strings_at : header + strings_at + strings_size]
        self._at = [0]
        self._named: dict[tuple[int, str], int] = {}
        self._index()

    @classmethod
    def of_kernel(cls) -> "Btf":
        """The running kernel's; raises Unavailable when it was built without."""
        try:
            return cls(KERNEL.read_bytes())
        except FileNotFoundError:
            raise Unavailable(f"this kernel has no {KERNEL}", "use a kernel built with CONFIG_DEBUG_INFO_BTF=y") from None

    def _index(self) -> None:
        at, end, unpack = 0, len(self._types), _TYPE.unpack_from
        while at < end:
            name, info, _ = unpack(self._types, at)
            kind = info >> 24 & 31
            if kind > _LAST_KIND:
                raise Unavailable(f"the kernel's BTF has types of kind {kind}, which is unknown here", "update Tasktrail")
            if name and kind in (_STRUCT, _UNION, _TYPEDEF):
                self._named.setdefault((kind, self._name(name)), len(self._at))
            self._at.append(at)
            at += _TYPE.size + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _kind(self, type_id: int) -> tuple[int, int, bool, int]:
        """Kind, number of members, whether offsets hold bit-field sizes, size or referred type."""
        _, info, value = _TYPE.unpack_from(self._types, self._at[type_id])
        return info >> 24 & 31, info & 0xFFFF, bool(info >> 31), value

    def _plain(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers."""
        while type_id:
            kind, _, _, value = self._kind(type_id)
            if kind not in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
                break
            type_id = value
        return type_id

    def _members(self, type_id: int, base: int = 0) -> Iterator[tuple[str, Member]]:
        """Members with their bit offsets, those of anonymous structs and unions among them."""
        _, number, with_bits, _ = self._kind(type_id)
        first = self._at[type_id] + _TYPE.size
        for index in range(number):
            name, member_type, where = _TYPE.unpack_from(self._types, first + 12 * index)
            bits = where >> 24 if with_bits else 0
            bit = base + (where & 0xFFFFFF if with_bits else where)
            if name:
                yield self._name(name), Member(bit, bits, member_type)
            else:
                inner = self._plain(member_type)
                if self._kind(inner)[0] in (_STRUCT, _UNION):
                    yield from self._members(inner, bit)

    def member(self, struct_name: str, path: str) -> Member | None:
        """The member that ``path`` (names joined with dots) leads to, None if the kernel has none."""
        type_id = self._named.get((_STRUCT, struct_name))
        found: Member | None = None
        base = 0
        for part in path.split("."):
            if type_id is None:
                return None
            found = next((member for name, member in self._members(type_id) if name == part), None)
            if found is None:
                return None
            base += found.bit
            type_id = self._plain(found.type_id)
        return None if found is None else found._replace(bit=base)

    def flag(self, struct_name: str, path: str) -> tuple[int, int] | None:
        """Byte and bit of a flag: a bit field of one bit, or a bool as 7.2 has for some of them; None if it is neither."""
        found = self.member(struct_name, path)
        if found is None:
            return None
        kind, _, _, size = self._kind(self._plain(found.type_id))
        if found.bits == 1 or (not found.bits and kind == _INT and size == 1):
            return found.bit // 8, found.bit % 8
        return None

    def size(self, struct_name: str) -> int | None:
        """Bytes of the struct, None if the kernel has none of that name."""
        type_id = self._named.get((_STRUCT, struct_name))
        return None if type_id is None else self._kind(type_id)[3]

    def tracepoint(self, name: str) -> int | None:
        """Id of the type that stands for a raw tracepoint, None if the kernel has no such tracepoint."""
        return self._named.get((_TYPEDEF, f"btf_trace_{name}"))

    def arguments(self, tracepoint: str) -> int | None:
        """How many arguments a raw tracepoint hands over, None if the kernel has no such tracepoint."""
        type_id = self.tracepoint(tracepoint)
        if type_id is None:
            return None
        pointer = self._kind(self._plain(type_id))
        assert pointer[0] == _PTR
        prototype = self._kind(self._plain(pointer[3]))
        assert prototype[0] == _FUNC_PROTO
        return prototype[1] - 1  # the first one is the program's own data
