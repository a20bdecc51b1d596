#!/usr/bin/env python3
"""A report, made by other programs."""

import os
import subprocess

subprocess.run(["sort", "/etc/passwd"], stdout=subprocess.DEVNULL, check=True)
subprocess.run("grep -c bash /etc/passwd | tr 0-9 a-j", shell=True, check=False)
if (child := os.fork()) == 0:
    os._exit(7)
os.waitpid(child, 0)
