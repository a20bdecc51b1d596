"""Each session of tests has temporary directories of its own: pytest closes the ones that it shares whenever another session begins,
and the store's unprivileged server can then reach its files no more."""

import os
import shutil
import tempfile

import pytest
from hypothesis import settings

settings.register_profile("ours", deadline=None)  # a busy machine is no fault
settings.load_profile("ours")

ROOT_VARIABLE = "PYTEST_DEBUG_TEMPROOT"
_made = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Name the session's root, unless somebody has."""
    if ROOT_VARIABLE not in os.environ:
        config.stash[_made] = os.environ[ROOT_VARIABLE] = tempfile.mkdtemp(prefix="tasktrail-tests-")
        os.chmod(config.stash[_made], 0o755)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was made here."""
    if config.stash.get(_made, ""):
        del os.environ[ROOT_VARIABLE]
        shutil.rmtree(config.stash[_made], ignore_errors=True)
