"""The BTF reader against what the compiler itself says of the same structs."""

import struct
import subprocess

import pytest

from producers.bpf.btf import Btf
from schemas.errors import Unavailable

SOURCE = """
#include <stddef.h>
#include <stdio.h>
typedef unsigned long long u64;
typedef struct { int counter; } atomic_t;
struct inner { char first; const char *const name; atomic_t live; };
struct deep { short a; struct inner in; u64 *volatile pointers[3]; };
struct outer {
    char lead;
    union { u64 whole; struct { int low; volatile int high; }; };
    struct deep deep, *link;
    struct deep many[2];
    unsigned before : 3, flag : 1, after : 1;
    unsigned char byte;
    struct { int x; struct { char y; int z; }; } named;
    enum { RED, GREEN } color;
};
typedef void (*btf_trace_something)(void *, struct outer *, unsigned long, int);
btf_trace_something keep;
struct outer it;
int main(void) {
#define SAY(path) printf(#path " %zu\\n", offsetof(struct outer, path))
    SAY(lead); SAY(whole); SAY(low); SAY(high); SAY(deep); SAY(deep.a); SAY(deep.in.name); SAY(deep.in.live.counter);
    SAY(deep.pointers); SAY(link); SAY(many); SAY(byte); SAY(named.x); SAY(named.y); SAY(named.z); SAY(color);
    printf("SIZE %zu\\n", sizeof(struct outer));
    it.flag = 1;
    for (unsigned bit = 0; bit < 8 * sizeof it; bit++)
        if (((unsigned char *)&it)[bit / 8] >> (bit % 8) & 1) printf("BIT %u\\n", bit);
    return 0;
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Btf, dict[str, int]]:
    """The types as BTF, and the offsets that the program prints."""
    directory = tmp_path_factory.mktemp("btf")
    (directory / "types.c").write_text(SOURCE)
    for command in (
        ["gcc", "-gbtf", "-c", "types.c", "-o", "types.o"],
        ["objcopy", "--dump-section", ".BTF=types.btf", "types.o"],
        ["gcc", "types.c", "-o", "types"],
    ):
        subprocess.run(command, cwd=directory, check=True)
    printed = subprocess.run([directory / "types"], check=True, capture_output=True, text=True).stdout
    return Btf((directory / "types.btf").read_bytes()), {name: int(value) for name, value in map(str.split, printed.splitlines())}


def test_offsets_are_those_of_the_compiler(compiled: tuple[Btf, dict[str, int]]) -> None:
    types, offsets = compiled
    paths = [path for path in offsets if path not in ("SIZE", "BIT")]
    assert len(paths) == 16
    for path in paths:
        member = types.member("outer", path)
        assert member is not None and (member.bit, member.bits) == (8 * offsets[path], 0), path
    assert types.size("outer") == offsets["SIZE"]


def test_bit_fields_have_their_bit(compiled: tuple[Btf, dict[str, int]]) -> None:
    types, offsets = compiled
    flag, before = types.member("outer", "flag"), types.member("outer", "before")
    assert flag and before
    assert (flag.bit, flag.bits, before.bits) == (offsets["BIT"], 1, 3)


def test_what_is_not_there_is_none(compiled: tuple[Btf, dict[str, int]]) -> None:
    types, _ = compiled
    assert types.member("outer", "nothing") is None
    assert types.member("outer", "deep.nothing.more") is None
    assert types.member("nothing", "lead") is None
    assert types.size("nothing") is None
    assert types.arguments("nothing") is None


def test_tracepoint_arguments_leave_out_the_programs_own(compiled: tuple[Btf, dict[str, int]]) -> None:
    assert compiled[0].arguments("something") == 3


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(Unavailable, match="does not begin as BTF does"):
        Btf(bytes(24))
    one_type = struct.pack("<III", 0, 20 << 24, 0)
    with pytest.raises(Unavailable, match="types of kind 20"):
        Btf(struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1) + one_type + b"\0")
