"""The compiled programs go back in loops only by jumps: Linux 6.1 refuses a loop that is entered anew by running into its begin.

Newer kernels do not mind, so no load on one of those shows it; this walks the instructions as check_cfg() of kernel/bpf/verifier.c
did then.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers.bpf import probes, source
from producers.bpf.btf import Btf

DESCRIPTORS = {f"{name}_FD": at for at, name in enumerate(("RING", "COUNTERS", "ONCE", "LOST", "LAST_EXIT", "EXEC_WORK", "SEEN_WORK"), 3)}
DIRECT = {f"{name} directly": name for name in probes.EVENTS}
HELPED = {name: name for name in (*probes.EVENTS, probes.MARK, probes.ITERATOR)}
JUMPS, CALL, EXIT, ALWAYS = (5, 6), 0x80, 0x90, 0x00


def following(code: bytes, at: int) -> Iterator[tuple[int, bool]]:
    """The instructions that may come after the one at this place, and whether each is reached by a jump (or by not taking one)."""
    operation, _, offset, _ = struct.unpack_from("<BBhi", code, 8 * at)
    kind = operation & 0xF0
    if operation & 7 not in JUMPS or kind == CALL:
        yield at + 1, False
    elif kind == ALWAYS:
        yield at + 1 + offset, True
    elif kind != EXIT:
        yield at + 1, True
        yield at + 1 + offset, True


def run_into_a_loop(code: bytes) -> list[int]:
    """Begins of loops that are run into from inside without a jump."""
    on_the_way, done, found = {0}, set(), []
    stack = [(0, following(code, 0))]
    while stack:
        at, rest = stack[-1]
        for to, jumped in rest:
            if to in on_the_way and not jumped:
                found.append(to)
            if to not in on_the_way and to not in done:
                on_the_way.add(to)
                stack.append((to, following(code, to)))
                break
        else:
            on_the_way.discard(at)
            done.add(at)
            stack.pop()
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The instructions of each program, as the compiler here makes them."""
    from bcc import BPF

    tree: Path = tmp_path_factory.mktemp("tree")
    probes._write_tree(tree)
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    text = source.with_maps(source.generate(Btf.of_kernel(), source.Settings()), DESCRIPTORS, epoch=1)
    code = {}
    for direct, functions in ((True, DIRECT), (False, HELPED)):
        module = BPF(text=(probes.variant(direct=direct) + text).encode())
        code |= {name: module.dump_func(function.encode()) for name, function in functions.items()}
    return code


@pytest.mark.parametrize("name", [*DIRECT, *HELPED])
def test_loops_go_back_by_jumps(compiled: dict[str, bytes], name: str) -> None:
    assert run_into_a_loop(compiled[name]) == []


def test_a_loop_without_a_jump_back_is_found() -> None:
    one, skip, leave, back = ((0xB7, 0, 0, 0), (0x05, 0, 1, 0), (0x15, 0, 1, 0), (0x05, 0, -3, 0))
    # 0 jumps over 1 to 2; 2 leaves or goes on to 3, which jumps back to 1; 1 runs into 2.
    code = b"".join(struct.pack("<BBhi", *one) for one in (skip, one, leave, back, (EXIT | 5, 0, 0, 0)))
    assert run_into_a_loop(code) == [2]
