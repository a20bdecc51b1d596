"""The programs compiled and put into the kernel: the only module that knows bcc.

bcc wants a kernel source tree; it gets an empty one, for the C text uses nothing of it. The compiler makes a process about
100 MB large, so this runs in the loader, which ends.
"""

import os
import platform
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

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


class Functions(NamedTuple):
    """Loaded programs by function name, as file descriptors. They live as long as somebody holds a descriptor, a link or a pin."""

    descriptors: dict[str, int]


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


def load(text: str, raw: tuple[str, ...], iterators: tuple[str, ...]) -> Functions:
    """Compiles the C text and loads its functions: ``raw`` as raw tracepoint programs, ``iterators`` as BPF iterators.

    Raises Unavailable when bcc is missing, the text does not compile here, or the kernel refuses a program.
    """
    with tempfile.TemporaryDirectory(prefix="tasktrail-") as tree:
        _write_tree(Path(tree))
        os.environ["BCC_KERNEL_SOURCE"] = tree
        try:
            from bcc import BPF  # PyPI's bcc is an unrelated library, which has no BPF
        except ImportError:
            cure = "install the distribution's python3-bpfcc and use an environment made with --system-site-packages"
            raise Unavailable("bcc is not there for this Python", cure) from None
        try:
            module = BPF(text=text.encode())
            kinds = [(name, BPF.RAW_TRACEPOINT) for name in raw] + [(name, BPF.TRACING) for name in iterators]
            # The descriptors are copied, because bcc closes its own when the module goes.
            return Functions({name: os.dup(module.load_func(name.encode(), kind).fd) for name, kind in kinds})
        except Exception as failure:
            raise Unavailable(
                f"the kernel programs could not be loaded: {failure}", "the compiler's or verifier's words are above"
            ) from failure
