"""Tests of the whole: root, a real kernel, a real ClickHouse. They fail where one is missing: a skipped test looks like a passed one."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers import prerequisites
from schemas.errors import TasktrailError
from tests.e2e.running import ROOT, Place, open_directory


@pytest.fixture(scope="session", autouse=True)
def kernel_allows_recording() -> None:
    """Fails every test here when this process or kernel cannot record."""
    try:
        prerequisites.check_rights()
    except TasktrailError as failure:
        pytest.fail(f"these tests cannot run here: {failure}")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the compiled programs of the kernel tests that are needed here."""
    directory = tmp_path_factory.mktemp("programs")
    directory.chmod(0o755)
    for name in ("storm", "tiny", "sleeper"):
        options = ["-nostdlib", "-static"] if name == "tiny" else ["-pthread"]
        source = ROOT / "tests" / "kernel" / "programs" / f"{name}.c"
        subprocess.run(["gcc", "-O1", *options, "-o", str(directory / name), str(source)], check=True)
    return directory


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with open_directory() as directory:
        made = Place(directory, TASKTRAIL_RING_BYTES="64MiB")
        try:
            yield made
        finally:
            made.clear()
