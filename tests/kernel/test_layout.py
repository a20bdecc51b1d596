"""Numbers that C and Python must agree on: record layouts, and every kernel offset in the code that is generated."""

import ctypes
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel_tools import Live

from producers import snapshot
from producers.bpf import btf, pins, source, syscall
from schemas import events

_STRUCTS = {
    events.Kind.FORK: "fork_record",
    events.Kind.EXEC: "exec_record",
    events.Kind.EXIT: "exit_record",
    events.Kind.RENAME: "rename_record",
    events.Kind.MARK: "mark_record",
    events.Kind.SEEN: "seen_record",
}


def struct_offsets(layout: struct.Struct) -> list[int]:
    """Byte offset of each value that the layout packs, padding left out."""
    offsets, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
        each = struct.calcsize("<" + code)
        if code in "xs":
            if code == "s":
                offsets.append(at)
            at += each * int(count or 1)
        else:
            for _ in range(int(count or 1)):
                offsets.append(at)
                at += each
    assert at == layout.size
    return offsets


def c_members(text: str, name: str) -> list[str]:
    """Paths of a struct's members in order; arrays of numbers give one path for each element, padding gives none."""
    body = re.search(rf"struct {name} {{\n(.*?)\n}};", text, re.DOTALL)
    assert body, name
    members: list[str] = []
    for line in body[1].split("\n"):
        declared = re.match(r"\s*(struct (\w+)|u8|u16|u32|u64|char) (.*);", line)
        assert declared, line
        for member in declared[3].split(", "):
            inner, _, length = member.partition("[")
            if declared[2]:
                members += [f"{inner}.{path}" for path in c_members(text, declared[2])]
            elif length and declared[1] != "char":
                members += [f"{inner}[{index}]" for index in range(int(length.rstrip("]")))]
            else:
                members.append(inner)
    return members


@pytest.mark.parametrize("kind", _STRUCTS)
def test_c_struct_has_the_offsets_of_the_layout(kind: events.Kind, tmp_path: Path) -> None:
    text = source.read_text()
    name = _STRUCTS[kind]
    # Padding has a name in C and none in a layout, but for the head's and that of the tail's sizes.
    members = [path for path in c_members(text, name) if path not in ("zero", "image.zero")]
    records = text[text.index("struct head {") : text.index("// -- end of records")]
    types = "".join(f"typedef unsigned {c} {short};\n" for short, c in (("u8", "char"), ("u16", "short"), ("u32", "int"), ("u64", "long")))
    prints = "".join(f'printf("%zu\\n", __builtin_offsetof(struct {name}, {path}));\n' for path in members)
    prints += f'printf("%zu\\n", sizeof(struct {name}));'
    program = f"#include <stdio.h>\n#define COMM_BYTES 16\n{types}{records}\nint main(void) {{ {prints} }}"
    (tmp_path / "offsets.c").write_text(program)
    subprocess.run(["gcc", "-o", str(tmp_path / "offsets"), str(tmp_path / "offsets.c")], check=True)
    printed = subprocess.run([str(tmp_path / "offsets")], check=True, capture_output=True, text=True).stdout
    layout = events.LAYOUT[kind][0]
    assert [int(line) for line in printed.split()] == [*struct_offsets(layout), layout.size]


def test_once_entry_has_the_layout_that_python_reads() -> None:
    text = source.read_text()
    assert c_members(text, "once") == ["start_ns", "creator_start_ns", "creator_exec_id", "exec_id", "creator_tgid", "renamed"]
    assert snapshot.ONCE.size == 40


def test_tail_offsets_that_python_patches() -> None:
    record = bytes(events.SEEN.size)
    patched = snapshot.patched(record, flags=0x01020304, argc=7, argv=b"a\0b\0")
    values = events.SEEN.unpack_from(patched)
    fields = list(events.Seen._fields)
    assert values[3] == 0x01020304
    assert values[3 + fields.index("argc")] == 7
    assert values[32] == 4
    assert patched[events.SEEN.size :] == b"a\0b\0"


def test_every_offset_in_the_source_is_where_the_kernel_has_it() -> None:
    """The generated text against BTF, member by member, by walking the type graph a second way (raw scan, no index)."""
    types = btf.Btf.of_kernel()
    text = source.read_text()
    asked = set(re.findall(r"OFFSET\((\w+), ([\w.]+)\)", text))
    assert len(asked) > 60
    filled = source.fill(text, types)
    assert not re.search(r"OFFSET\(|SIZEOF\(|BITFIELD\(", filled)
    lines, numbers = text.split("\n"), filled.split("\n")
    assert len(lines) == len(numbers)
    seen = set()
    for line, with_numbers in zip(lines, numbers, strict=True):
        pattern = re.escape(line)
        names = re.findall(r"OFFSET\((\w+), ([\w.]+)\)", line)
        for struct_name, path in names:
            pattern = pattern.replace(re.escape(f"OFFSET({struct_name}, {path})"), r"(\d+)", 1)
        if not names or "BITFIELD" in line or "SIZEOF" in line:
            continue
        match = re.fullmatch(pattern, with_numbers)
        assert match, with_numbers
        for (struct_name, path), number in zip(names, match.groups(), strict=True):
            member = types.member(struct_name, path)
            assert member and member.bit == 8 * int(number), (struct_name, path)
            seen.add((struct_name, path))
    assert len(asked - seen) <= 3


def test_a_kernel_that_lacks_something_is_told_so() -> None:
    types = btf.Btf.of_kernel()
    with pytest.raises(source.Unavailable, match=r"lacks struct nothing, task_struct\.no_such_member"):
        source.fill("OFFSET(task_struct, no_such_member) SIZEOF(nothing)", types)


class Instruction(NamedTuple):
    """One instruction of a loaded program, after the verifier."""

    opcode: int
    offset: int
    immediate: int


def instructions_of(program_fd: int) -> list[Instruction]:
    """The instructions that the kernel runs."""
    size = struct.unpack_from("<I", syscall._info(program_fd, 232), 20)[0]
    code = ctypes.create_string_buffer(size)
    info = ctypes.create_string_buffer(struct.pack("<20xI8xQ", size, ctypes.addressof(code)), 232)
    syscall._bpf(15, struct.pack("<IIQ", program_fd, len(info), ctypes.addressof(info)))
    return [Instruction(*struct.unpack_from("<Bxhi", code, at)) for at in range(0, size, 8)]


def test_the_kernel_runs_with_the_offsets_of_its_btf(live: Live) -> None:
    """What was really loaded: each offset that the source names is an immediate of some addition there."""
    check_offsets([attached_program(live, name) for name in (*pins.LINKS.values(), pins.SEEN)], source.read_text())


def test_the_programs_at_tracepoints_load_directly_with_the_offsets_of_the_btf(live: Live) -> None:
    """Each offset that they name is that of a load of a kernel struct, of the member's width, or was added for a helper's call."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (5, 11):
        pytest.skip("Linux 5.11 brought bpf_get_current_task_btf, which such programs call")
    programs = [attached_program(live, name) for name in pins.LINKS.values()]
    assert {syscall.program_info(fd).kind for fd in programs} == {syscall.TRACING}
    text = source.read_text()
    check_offsets(programs, text[: text.index("// Snapshots: an iterator")])
    types = btf.Btf.of_kernel()
    loads = [one for fd in programs for one in instructions_of(fd) if one.opcode & 0x07 == 0x01]
    for struct_name, path, width in LOADED:
        member = types.member(struct_name, path)
        assert member
        assert any(one.offset == member.bit // 8 and WIDTHS[one.opcode & 0x18] == width for one in loads), (struct_name, path)


WIDTHS = {0x00: 4, 0x18: 8}
LOADED = [
    ("task_struct", "tgid", 4),
    ("task_struct", "start_boottime", 8),
    ("task_struct", "self_exec_id", 8),
    ("task_struct", "real_parent", 8),
    ("task_struct", "group_leader", 8),
    ("task_struct", "cred", 8),
    ("task_struct", "cgroups", 8),
    ("task_struct", "comm", 8),
    ("cred", "euid.val", 4),
    ("css_set", "dfl_cgrp", 8),
    ("kernfs_node", "id", 8),
    ("mm_struct", "exe_file", 8),
    ("dentry", "d_parent", 8),
    ("inode", "i_ino", 8),
    ("signal_struct", "utime", 8),
    ("signal_struct", "sum_sched_runtime", 8),
]
"""Members that the direct programs load, with their widths in bytes."""


def attached_program(live: Live, link: str) -> int:
    """Descriptor of the program behind a link."""
    return syscall.open_program(syscall.link_info(live.recorder._fds[link]).program_id)


def check_offsets(programs: list[int], text: str) -> None:
    """Each offset that the text names is an immediate of some addition in these programs, or the offset of a load."""
    add_immediate, load = {0x07, 0x04, 0xBF, 0xB7}, 0x01
    instructions = [one for fd in programs for one in instructions_of(fd)]
    added = {abs(one.immediate) for one in instructions if one.opcode in add_immediate}
    added |= {one.offset for one in instructions if one.opcode & 7 == load}
    types = btf.Btf.of_kernel()
    asked = set(re.findall(r"OFFSET\((\w+), ([\w.]+)\)", text))
    members = {member: types.member(*member) for member in asked}
    thread_node = members["task_struct", "thread_node"]
    assert thread_node
    added |= {immediate + thread_node.bit // 8 for immediate in added}  # going from a list entry to its thread is folded into what follows
    missing = {member for member, found in members.items() if found and found.bit and found.bit // 8 not in added}
    assert missing <= {("pid", "numbers"), ("upid", "ns"), ("signal_struct", "live.counter")}, missing
