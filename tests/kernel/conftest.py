"""Kernel tests: they need root and a kernel with BTF, and say so by failing. A skipped test would look like a passed one."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from kernel_tools import Live, load_live, new_pin_dir, remove_pins, unload_live

from producers import loader, prerequisites
from producers.bpf.btf import Btf
from schemas.errors import TasktrailError

_SOURCES = Path(__file__).parent / "programs"
_RECORDER = "TASKTRAIL_RECORDER"


@pytest.fixture(scope="session", autouse=True)
def kernel_allows_recording() -> None:
    """Fails every test here when this process or kernel cannot record."""
    try:
        prerequisites.check_rights()
        prerequisites.check_bpf_file_system(new_pin_dir())
        Btf.of_kernel()
    except TasktrailError as failure:
        pytest.fail(f"kernel tests cannot run here: {failure}")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the compiled helper programs; TASKTRAIL_PROGRAMS names one that was made elsewhere, for where there is no compiler."""
    if made := os.environ.get("TASKTRAIL_PROGRAMS"):
        return Path(made)
    directory = tmp_path_factory.mktemp("programs")
    directory.chmod(0o755)
    for path in _SOURCES.glob("*.c"):
        options = ["-nostdlib", "-static"] if path.stem == "tiny" else ["-pthread"]
        subprocess.run(["gcc", "-O1", *options, "-o", str(directory / path.stem), str(path)], check=True)
    return directory


def _dear(fixture_name: str, config: pytest.Config) -> Literal["session", "module"]:
    """How long a loaded recorder is kept: to the end where loading takes half a minute, in a machine that is emulated."""
    return "session" if _RECORDER in os.environ else "module"


@pytest.fixture(scope=_dear)
def shared_live(tmp_path_factory: pytest.TempPathFactory, record_testsuite_property: Callable[[str, object], None]) -> Iterator[Live]:
    """One recorder for the tests of a module; TASKTRAIL_RECORDER names the pins of one that is loaded already, for all of them."""
    if pin_dir := os.environ.get(_RECORDER):
        live = Live(Path(pin_dir), loader.Settings())
    else:
        live = load_live(tmp_path_factory.mktemp("recorder"))
    yield live
    record_testsuite_property("skips", live.recorder.counters().skipped)
    unload_live(live)


@pytest.fixture(scope=_dear)
def small_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Another recorder, with a ring that a few hundred processes fill. It may have lost something already."""
    live = load_live(tmp_path_factory.mktemp("small"), ring_bytes=1 << 16)
    yield live
    unload_live(live)


@pytest.fixture
def live(shared_live: Live) -> Live:
    """The module's recorder, caught up: its records are those of this test."""
    shared_live.forget()
    return shared_live


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    """A directory for pins, cleared afterwards whatever is in it."""
    path = new_pin_dir()
    yield path
    remove_pins(path)
