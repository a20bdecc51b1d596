#!/usr/bin/python3
"""Names and arguments that try to be more than names: escapes, newlines, forged steps, bytes that are no text."""

import os
import shutil
import tempfile

NAMES = (
    b"sh(1) > evil(2)",
    b"a\nsystemd(1) > x",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;owned\x07",
    b"x=>name=sshd",
    b"caf\xe9 \xff\xfe",
    "\u202egnp.exe".encode(),
    b"'\"$(id)`id`\\",
    b"?",
)
directory = os.fsencode(tempfile.mkdtemp(prefix="odd-", dir="/tmp"))
for name in NAMES:
    path = os.path.join(directory, name)
    shutil.copy("/usr/bin/true", path)
    child = os.posix_spawn(path, [name, b"one argument", b"", b"--x=\x1b[2J\r\n> root(0) => " + name, b"\xf0\x9f\x90\xa7 \xc3\x28"], {})
    os.waitpid(child, 0)
with open("/proc/self/comm", "wb") as comm:
    comm.write(b"\x1b[7m > init(1)")
child = os.fork()
if child == 0:
    os._exit(3)
os.waitpid(child, 0)
shutil.rmtree(directory)
