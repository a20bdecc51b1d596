"""The host's identity: kept, bound to the machine-id, and made anew for a clone."""

import time
from pathlib import Path

import pytest

from producers import host
from schemas.errors import Unavailable


def test_the_id_is_made_once_and_kept(tmp_path: Path) -> None:
    state = tmp_path / "not" / "there"
    made = host.host_id(state)
    assert made.version == 4
    assert host.host_id(state) == made
    assert host.host_id(tmp_path / "other") != made
    assert [path.name for path in state.iterdir()] == ["host-id"]


def test_another_machine_gets_another_id(tmp_path: Path) -> None:
    made = host.host_id(tmp_path)
    (tmp_path / "host-id").write_text(f"{made} {'0' * 32}\n")
    again = host.host_id(tmp_path)
    assert again != made
    assert host.host_id(tmp_path) == again


def test_a_broken_file_is_no_reason_for_a_new_id(tmp_path: Path) -> None:
    (tmp_path / "host-id").write_text(f"half-an-id {host.machine_id()}\n")
    with pytest.raises(Unavailable, match=r"does not hold a host id; remove .*host-id"):
        host.host_id(tmp_path)


def test_both_clocks_are_of_one_moment() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    moment = host.now()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= moment.boottime_ns <= after
    offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(moment.realtime_ns - moment.boottime_ns - offset) < 50_000_000


def test_here_is_this_boot(tmp_path: Path) -> None:
    found = host.here(tmp_path)
    assert str(found.boot_id) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.host_id == host.host_id(tmp_path)
    assert found.hostname.decode() == Path("/proc/sys/kernel/hostname").read_text().strip()
