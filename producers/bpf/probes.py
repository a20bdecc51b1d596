"""The programs compiled and put into the kernel: the only module that knows bcc.

bcc wants a kernel source tree; it gets an empty one, for the C text uses nothing of it. The compiler makes a process about
100 MB large, so this runs in the loader, which ends.
"""

import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from producers.bpf import syscall
from schemas.errors import Unavailable

_TYPES = """#ifndef TASKTRAIL_TYPES
#define TASKTRAIL_TYPES
typedef unsigned char u8, __u8; typedef signed char s8, __s8;
typedef unsigned short u16, __u16, __be16, __sum16; typedef short s16, __s16;
typedef unsigned int u32, __u32, __be32, __wsum; typedef int s32, __s32, pid_t;
typedef unsigned long long u64, __u64, __be64, __aligned_u64; typedef long long s64, __s64;
typedef _Bool bool; typedef unsigned long size_t, uintptr_t;
#define true 1
#define false 0
#define NULL ((void *)0)
struct pt_regs { unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss; };
#endif
"""
_EMPTY = ("bpf_common.h", "log2.h", "../uapi/linux/bpf.h", "../uapi/linux/if_packet.h", "../uapi/linux/types.h", "../uapi/linux/ptrace.h")


EVENTS = ("on_fork", "on_exec", "on_exit", "on_rename")
"""Functions that run at tracepoints."""
MARK, ITERATOR = "mark", "bpf_iter__task"
"""Functions that the reader runs."""


class Functions(NamedTuple):
    """Loaded programs by function name, as file descriptors. They live as long as somebody holds a descriptor, a link or a pin.

    refusal  why the programs at the tracepoints read by helper calls; empty if they read directly, which is cheaper
    """

    descriptors: dict[str, int]
    refusal: str = ""


def _write_tree(root: Path) -> None:
    """The least that bcc's own headers include."""
    numbers = [int(number) for number in re.findall(r"\d+", platform.release())[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    version = (major << 16) + (minor << 8) + min(patch, 255)
    files = {
        "linux/kconfig.h": "#define __user\n#define __kernel\n#define CONFIG_BPF_SYSCALL 1\n#include <linux/types.h>\n",
        "linux/types.h": _TYPES,
        "linux/version.h": f"#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n#define LINUX_VERSION_CODE {version}\n",
        "asm/page.h": f"#define PAGE_SIZE {os.sysconf('SC_PAGE_SIZE')}\n",
    }
    files |= {f"linux/{name}": "" for name in _EMPTY}
    for name, text in files.items():
        path = root / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextmanager
def _compiler() -> Iterator[Any]:
    """bcc's BPF, with the tree that it wants. Raises Unavailable when bcc is missing."""
    with tempfile.TemporaryDirectory(prefix="tasktrail-") as tree:
        _write_tree(Path(tree))
        os.environ["BCC_KERNEL_SOURCE"] = tree
        try:
            from bcc import BPF  # PyPI's bcc is an unrelated library, which has no BPF
        except ImportError:
            cure = "install the distribution's python3-bpfcc and use an environment made with --system-site-packages"
            raise Unavailable("bcc is not there for this Python", cure) from None
        yield BPF


def load(text: str, types: Mapping[str, int]) -> Functions:
    """Compiles the C text and loads its functions: those at tracepoints, the mark and the iterator.

    ``types`` has the BTF id of each function's tracepoint. With it the function reads the kernel's structs directly; if the kernel refuses
    that, or an id is missing, all of them are loaded as raw tracepoint programs, which every kernel since 5.10 takes.

    Raises Unavailable when bcc is missing, the text does not compile here, or the kernel refuses a program.
    """
    with _compiler() as bpf:
        direct, refusal = _load_direct(bpf, text, types)
        raw = (MARK,) if direct else (*EVENTS, MARK)
        try:
            module = bpf(text=(variant(direct=False, events=not direct) + text).encode())
            kinds = [(name, bpf.RAW_TRACEPOINT) for name in raw] + [(ITERATOR, bpf.TRACING)]
            # The descriptors are copied, because bcc closes its own when the module goes.
            loaded = {name: os.dup(module.load_func(name.encode(), kind).fd) for name, kind in kinds}
        except Exception as failure:
            _close(direct)
            raise _refused(failure) from failure
        return Functions(direct | loaded, refusal)


def load_spares(text: str, types: Mapping[str, int], direct: bool) -> dict[str, int]:
    """Compiles and loads the spare copies, by function name, in the form that the first ones have.

    Raises Unavailable when the text does not compile here, or the kernel refuses a program.
    """
    with _compiler() as bpf:
        try:
            module = bpf(text=(variant(direct=direct, spare=True) + text).encode())
            if direct:
                return _load_typed(module, EVENTS, types)
            return {name: os.dup(module.load_func(name.encode(), bpf.RAW_TRACEPOINT).fd) for name in EVENTS}
        except Exception as failure:
            raise _refused(failure) from failure


def _refused(failure: Exception) -> Unavailable:
    return Unavailable(f"the kernel programs could not be loaded: {failure}", "the compiler's or verifier's words are above")


def variant(*, direct: bool, events: bool = True, spare: bool = False) -> str:
    """The first lines of the text: whether its programs read directly, which of them are in it, and whether they are spare copies."""
    reader = not direct and not spare
    return f"#define DIRECT {int(direct)}\n#define EVENTS {int(events)}\n#define READER {int(reader)}\n#define SPARE {int(spare)}\n"


def _load_direct(bpf: Any, text: str, types: Mapping[str, int]) -> tuple[dict[str, int], str]:
    """The programs at tracepoints that read directly, or none of them and the reason."""
    if missing := [name for name in EVENTS if name not in types]:
        return {}, f"the tracepoint of {missing[0]} has no type"
    try:
        return _load_typed(bpf(text=(variant(direct=True) + text).encode()), EVENTS, types), ""
    except Exception as failure:  # whatever it is, raw tracepoints remain
        return {}, str(failure)


def _load_typed(module: Any, names: Sequence[str], types: Mapping[str, int]) -> dict[str, int]:
    """All of these functions, for the tracepoints of these types. Raises OSError that names the one that is refused, and loads none."""
    loaded: dict[str, int] = {}
    for name in names:
        try:
            loaded[name] = syscall.load_typed(module.dump_func(name.encode()), types[name], name)
        except Exception as failure:
            _close(loaded)
            raise OSError(f"{name}: {failure}") from failure
    return loaded


def _close(descriptors: dict[str, int]) -> None:
    for fd in descriptors.values():
        os.close(fd)
