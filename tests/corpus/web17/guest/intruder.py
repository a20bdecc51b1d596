"""What comes in through the hole: runs from a deleted file and from memory, under the name of a kernel thread."""

import os
import shutil

shutil.copy("/usr/bin/sleep", "/tmp/.cache-17")
file = os.open("/tmp/.cache-17", os.O_RDONLY)
os.unlink("/tmp/.cache-17")
if os.fork() == 0:
    os.setsid()
    os.execve(file, ["/usr/sbin/sshd", "1801"], {})
memory = os.memfd_create("a")
with open("/usr/bin/sleep", "rb") as source, os.fdopen(os.dup(memory), "wb") as copy:
    shutil.copyfileobj(source, copy)
if os.fork() == 0:
    os.setsid()
    os.execve(memory, ["[kworker/0:1]", "1802"], {})
