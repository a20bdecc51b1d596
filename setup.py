"""Compiles the join when asked: ``TASKTRAIL_COMPILE=1 pip install '.[stream]'``, with a C compiler and python3-dev there.

The join is then a third faster, and the same: `make test-compiled` holds it to the tests of the plain one. Only what is installed is
compiled, rules and copy at once; an editable checkout is run as it is written, or a copy older than its rule would be believed.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

COMPILER = "mypy==2.4.1"
MODULES = ("facts", "log", "losses", "model", "rows", "snapshot", "transitions")
ASKED = os.environ.get("TASKTRAIL_COMPILE") == "1"


def compiled() -> list[Extension]:
    """The join's modules as C, for a wheel; nothing while the builder only asks what is needed."""
    if "editable_wheel" in sys.argv:
        raise SystemExit("TASKTRAIL_COMPILE=1: a checkout installed with -e is not compiled; install it without -e")
    if "bdist_wheel" not in sys.argv:
        return []
    from mypyc.build import mypycify

    return mypycify([str(Path("streams", "join", f"{name}.py")) for name in MODULES], opt_level="3")


setup(setup_requires=[COMPILER] if ASKED else [], ext_modules=compiled() if ASKED else [])
