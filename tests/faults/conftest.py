"""The faults use what the tests of the kernel and of the whole share."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import kernel_allows_recording, place

sys.path.append(str(Path(__file__).resolve().parent.parent / "kernel"))  # its tests are no package, so that they can run in other kernels

from kernel_tools import load_live, unload_live

from tests.faults.kernel_host import Joined
from tests.fleet.fixtures import addresses, fleet, kafka, kafka_cluster, killable_kafka, own_cluster, parts, producing, shared_server

__all__ = [
    "addresses",
    "fleet",
    "kafka",
    "kafka_cluster",
    "kernel_allows_recording",
    "killable_kafka",
    "own_cluster",
    "parts",
    "place",
    "producing",
    "shared_server",
]

SOURCES = (Path(__file__).parent / "programs", Path(__file__).parents[1] / "kernel" / "programs")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the compiled programs."""
    directory = tmp_path_factory.mktemp("programs")
    directory.chmod(0o755)
    for path in [path for source in SOURCES for path in source.glob("*.c")]:
        # What is to be fast needs no libraries.
        options = {"tiny": ["-nostdlib", "-static"], "flood": ["-static"]}.get(path.stem, ["-pthread"])
        subprocess.run(["gcc", "-O1", *options, "-o", str(directory / path.stem), str(path)], check=True)
    return directory


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Joined]:
    """A recorder with room for a storm, and the join behind it."""
    live = load_live(tmp_path, ring_bytes=1 << 26)
    yield Joined(live)
    unload_live(live)


@pytest.fixture
def small_host(tmp_path: Path) -> Iterator[Joined]:
    """One whose ring is soon full."""
    live = load_live(tmp_path, ring_bytes=1 << 18)
    yield Joined(live)
    unload_live(live)
