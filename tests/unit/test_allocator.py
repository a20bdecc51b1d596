"""The allocator takes what it is told."""

import subprocess
import sys

PROGRAM = """
import re, sys
from producers.allocator import hold_little
if sys.argv[1] == "little":
    assert hold_little()
small = [bytes(200_000) for _ in range(200)]
keep = bytes(1000)
del small
print(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def left_kib(how: str) -> int:
    """Memory that is left when forty megabytes have been let go."""
    return int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout)


def test_what_is_let_go_goes_back_to_the_kernel() -> None:
    assert left_kib("little") < 20_000
    assert left_kib("little") <= left_kib("much") + 1_000
