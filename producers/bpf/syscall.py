"""bpf(2) as far as the recorder needs it, without any library: linux/bpf.h's ``union bpf_attr`` packed by hand.

Every function raises OSError with the kernel's errno when the kernel refuses.
"""

import ctypes
import os
import platform
import resource
import struct
from pathlib import Path
from typing import NamedTuple

_NUMBER = {"x86_64": 321, "aarch64": 280}
_ATTR_BYTES = 128
"""At least as much as any command here reads; the kernel takes a longer one if the rest is zero."""

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD, _OBJ_PIN, _OBJ_GET, _PROG_TEST_RUN = 0, 1, 2, 5, 6, 7, 10
_PROG_GET_FD_BY_ID, _OBJ_GET_INFO, _RAW_TRACEPOINT_OPEN, _LINK_CREATE, _ENABLE_STATS, _ITER_CREATE = 13, 15, 17, 28, 32, 33

HASH, ARRAY, PERCPU_ARRAY, RINGBUF = 1, 2, 6, 27
NO_PREALLOC = 1
TRACING = 26
TRACE_RAW_TP, TRACE_ITER = 23, 28
LINK_RAW_TRACEPOINT, LINK_ITER = 1, 4

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: bytes) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """The call's result, and the attr as the kernel left it."""
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    result = _libc.syscall(_NUMBER[platform.machine()], command, buffer, _ATTR_BYTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, buffer


def lift_memory_limit() -> bool:
    """Lets this process have as many maps and programs as it wants; False if it may have only its hard limit's worth.

    Before 5.11 their memory counts as locked memory of whoever makes them, 64 KiB to begin with. Later kernels do not ask.
    """
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError:
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        return False
    return True


def create_map(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0, name: str = "") -> int:
    """Descriptor of a new map."""
    attr = struct.pack("<IIIIIII16s", kind, key_bytes, value_bytes, entries, flags, 0, 0, name.encode()[:15])
    return _bpf(_MAP_CREATE, attr)[0]


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value under the key, None if there is none. ``value_bytes``: of all CPUs together for a per-CPU map."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_bytes)
    try:
        _bpf(_MAP_LOOKUP, struct.pack("<I4xQQQ", fd, ctypes.addressof(key_buffer), ctypes.addressof(value), 0))
    except FileNotFoundError:
        return None
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Puts the value under the key."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, struct.pack("<I4xQQQ", fd, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), 0))


def pin(fd: int, path: Path) -> None:
    """Gives the object a name in a bpf file system; the name keeps it alive."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(_OBJ_PIN, struct.pack("<QII", ctypes.addressof(name), fd, 0))


def open_pin(path: Path) -> int:
    """Descriptor of the object that the name stands for."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(_OBJ_GET, struct.pack("<QII", ctypes.addressof(name), 0, 0))[0]


def load_typed(code: bytes, type_id: int, name: str) -> int:
    """Descriptor of a program for the raw tracepoint of this BTF type, whose arguments then have types for the verifier."""
    instructions, license_name = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    begin = struct.pack("<IIQQ", TRACING, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license_name))
    named = struct.pack("<IIQII16sII", 0, 0, 0, 0, 0, name.encode()[:15], 0, TRACE_RAW_TP)
    return _bpf(_PROG_LOAD, begin + named + struct.pack("<36xI", type_id))[0]


def attach_raw_tracepoint(program_fd: int, tracepoint: str) -> int:
    """Descriptor of a link that runs the program at the raw tracepoint as long as the link lives.

    A program that was loaded for the tracepoint's type knows its name already.
    """
    name = ctypes.create_string_buffer(tracepoint.encode())
    address = 0 if program_info(program_fd).kind == TRACING else ctypes.addressof(name)
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", address, program_fd))[0]


def link_iterator(program_fd: int) -> int:
    """Descriptor of an iterator's link."""
    return _bpf(_LINK_CREATE, struct.pack("<IIII", program_fd, 0, TRACE_ITER, 0))[0]


def open_iterator(link_fd: int) -> int:
    """Descriptor that reads what one run of the iterator writes."""
    return _bpf(_ITER_CREATE, struct.pack("<II", link_fd, 0))[0]


def run_raw_tracepoint(program_fd: int, arguments: tuple[int, ...]) -> int:
    """Runs the program once in this process with these arguments (unsigned 64-bit, at most 12) and gives its return value."""
    context = ctypes.create_string_buffer(struct.pack(f"<{len(arguments)}Q", *arguments))
    size = 8 * len(arguments)
    attr = struct.pack("<IIIIQQIIIIQQII", program_fd, 0, 0, 0, 0, 0, 0, 0, size, 0, ctypes.addressof(context), 0, 0, 0)
    _, after = _bpf(_PROG_TEST_RUN, attr)
    return int(struct.unpack_from("<I", after, 4)[0])


def enable_stats() -> int:
    """Descriptor that makes the kernel measure run times of all programs as long as it is open."""
    return _bpf(_ENABLE_STATS, struct.pack("<I", 0))[0]


def _info(fd: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    _bpf(_OBJ_GET_INFO, struct.pack("<IIQ", fd, size, ctypes.addressof(buffer)))
    return buffer.raw


class MapInfo(NamedTuple):
    """What the kernel says of a map (struct bpf_map_info)."""

    kind: int
    map_id: int
    key_bytes: int
    value_bytes: int
    entries: int


def map_info(fd: int) -> MapInfo:
    """The map's type and sizes."""
    return MapInfo(*struct.unpack_from("<IIIII", _info(fd, 80)))


class ProgramInfo(NamedTuple):
    """What the kernel says of a program (struct bpf_prog_info).

    run_time_ns       time spent in it while statistics were enabled
    run_count         runs in that time
    recursion_misses  times that the kernel did not run it, because it was running on that CPU already
    verified          instructions that the verifier followed
    """

    kind: int
    program_id: int
    run_time_ns: int
    run_count: int
    recursion_misses: int
    verified: int


def program_info(fd: int) -> ProgramInfo:
    """The program's counts; zeros where the kernel is too old to tell."""
    data = _info(fd, 232)
    return ProgramInfo(*struct.unpack_from("<II", data), *struct.unpack_from("<QQQI", data, 192))


def open_program(program_id: int) -> int:
    """Descriptor of the program with this id."""
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", program_id, 0, 0))[0]


class LinkInfo(NamedTuple):
    """What the kernel says of a link (struct bpf_link_info).

    tracepoint  name, for a link to a raw tracepoint
    """

    kind: int
    link_id: int
    program_id: int
    tracepoint: str


def link_info(fd: int) -> LinkInfo:
    """The link's type, program, and tracepoint if it has one."""
    name = ctypes.create_string_buffer(128)
    data = ctypes.create_string_buffer(struct.pack("<IIIIQI", 0, 0, 0, 0, ctypes.addressof(name), len(name)), 64)
    _bpf(_OBJ_GET_INFO, struct.pack("<IIQ", fd, len(data), ctypes.addressof(data)))
    kind, link_id, program_id = struct.unpack_from("<III", data)
    return LinkInfo(kind, link_id, program_id, name.value.decode() if kind == LINK_RAW_TRACEPOINT else "")
