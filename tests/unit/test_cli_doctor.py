"""doctor and status: each thing that can be missing is told with its cure."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from producers.prerequisites import LOADING
from schemas.rows import LossCause
from tasktrail import checks
from tasktrail.checks import Grade, Machine, look
from tasktrail.settings import Settings
from tasktrail.status_facts import Standing, is_alive, lines, process_cost, read_run, size, verdict
from tests.contract.rows import BEGIN, loss

NOW_S = BEGIN / 1e9
BTF = b"\0bpf_ringbuf\0bpf_iter__task\0btf_trace_sched_process_exec\0"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which nothing is missing."""
    files = {
        "sys/kernel/btf/vmlinux": BTF,
        "proc/self/mounts": b"proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n",
        "sys/fs/bpf/tasktrail/ring": b"",
        "var/lib/tasktrail/status.json": json.dumps({"time": NOW_S - 1, "pid": 55, "recording": True}).encode(),
        "proc/55/stat": b"",
        "py/bcc/libbcc.py": b"",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Machine(tmp_path, frozenset(LOADING), "6.1.0-18-amd64", lambda name: tmp_path / "py" / name, lambda path: 5 << 30, True, NOW_S)


def grades(machine: Machine, settings: Settings = Settings()) -> dict[str, Grade]:  # noqa: B008, it is frozen
    return {found.name: found.grade for found in look(machine, settings) if found.grade is not Grade.OK}


def test_nothing_is_missing_where_all_is_there(machine: Machine) -> None:
    assert grades(machine) == {}
    assert len({found.name for found in look(machine, Settings())}) == len(checks.CHECKS)


Change = Callable[[Machine], Machine]


def without(name: str) -> Change:
    def change(machine: Machine) -> Machine:
        path = machine.path(name)
        path.rename(path.with_name("gone"))
        return machine

    return change


def holding(name: str, content: bytes) -> Change:
    def change(machine: Machine) -> Machine:
        machine.path(name).parent.mkdir(parents=True, exist_ok=True)
        machine.path(name).write_bytes(content)
        return machine

    return change


@pytest.mark.parametrize(
    ("change", "name", "grade", "cure"),
    [
        (lambda machine: machine._replace(held=frozenset()), "rights", Grade.MISSING, "sudo"),
        (lambda machine: machine._replace(release="5.4.0-1"), "kernel", Grade.MISSING, "linux-image"),
        (lambda machine: machine._replace(release="5.10.0"), "kernel", Grade.OK, ""),
        (without("/sys/kernel/btf/vmlinux"), "btf", Grade.MISSING, "CONFIG_DEBUG_INFO_BTF"),
        (holding("/sys/kernel/btf/vmlinux", BTF.replace(b"ringbuf", b"ringbux")), "btf", Grade.MISSING, "5.10"),
        (holding("/sys/kernel/security/lockdown", b"none integrity [confidentiality]\n"), "lockdown", Grade.MISSING, "lockdown="),
        (holding("/sys/kernel/security/lockdown", b"none [integrity] confidentiality\n"), "lockdown", Grade.OK, ""),
        (holding("/proc/self/mounts", b""), "bpffs", Grade.MISSING, "mount -t bpf bpf /sys/fs/bpf"),
        (without("/py/bcc/libbcc.py"), "bcc", Grade.MISSING, "pip uninstall bcc"),
        (lambda machine: machine._replace(module=lambda name: None), "bcc", Grade.MISSING, "apt-get install python3-bpfcc"),
        (lambda machine: machine._replace(module=lambda name: None), "packages", Grade.MISSING, "tasktrail[store]"),
        (lambda machine: machine._replace(free_bytes=lambda path: 1 << 20), "store", Grade.MISSING, "--store"),
        (without("/sys/fs/bpf/tasktrail"), "recorder", Grade.NOTE, "tasktrail record load"),
        (without("/var/lib/tasktrail/status.json"), "run", Grade.NOTE, "tasktrail run"),
        (lambda machine: machine._replace(now_s=NOW_S + 60), "run", Grade.NOTE, "tasktrail run"),
        (without("/proc/55"), "run", Grade.NOTE, "tasktrail run"),
        (lambda machine: machine._replace(clock_synced=False), "clock", Grade.NOTE, "timesyncd"),
    ],
)
def test_each_thing_is_told_with_its_cure(machine: Machine, change: Change, name: str, grade: Grade, cure: str) -> None:
    found = next(found for found in look(change(machine), Settings()) if found.name == name)
    assert found.grade is grade and cure in found.cure and bool(found.cure) == (grade is not Grade.OK)


def test_a_directory_that_is_to_be_made_is_fine_and_a_file_is_not(machine: Machine) -> None:
    assert "store" not in grades(machine, Settings(store="/srv/new/store"))
    holding("/srv/file", b"")(machine)
    assert grades(machine, Settings(store="/srv/file"))["store"] is Grade.MISSING


def test_this_machine_can_be_looked_at() -> None:
    assert {found.name for found in look(checks.this_machine(), Settings(store="/nowhere"))} >= {"rights", "kernel", "clock"}


# -- status --


def test_run_is_believed_only_while_it_speaks_and_lives(tmp_path: Path) -> None:
    (tmp_path / "55").mkdir()
    assert is_alive({"time": 100.0, "pid": 55}, 101.0, tmp_path)
    assert not is_alive({"time": 100.0, "pid": 55}, 130.0, tmp_path)
    assert not is_alive({"time": 100.0, "pid": 56}, 101.0, tmp_path)
    assert not is_alive({"time": "x", "pid": True}, 101.0, tmp_path)
    assert not is_alive({}, 101.0, tmp_path)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_a_broken_status_is_no_status(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    assert read_run(tmp_path) == {}


@pytest.mark.parametrize(
    ("standing", "good", "says"),
    [
        (Standing(run={"recording": True}, run_alive=True), True, "recording and storing"),
        (Standing(run={"recording": False}, run_alive=True), False, "the recorder's programs do not answer"),
        (Standing(run={"recording": True, "message": "disk full"}, run_alive=True), False, "not storing: disk full"),
        (Standing(kernel={"ring_fill": 0.25}), False, "the ring is 25% full; start `tasktrail run`"),
        (Standing(kernel_says="nothing is loaded"), False, "not recording: nothing is loaded"),
        (Standing(), False, "start `tasktrail run`"),
    ],
)
def test_the_verdict_is_one_sentence(standing: Standing, good: bool, says: str) -> None:
    assert verdict(standing)[0] is good and says in verdict(standing)[1]


def test_lines_show_what_is_known_and_leave_out_the_rest() -> None:
    assert [name for name, _ in lines(Standing(), Settings(), NOW_S)] == ["state", "store"]
    run: dict[str, object] = {"recording": True, "recording_since": NOW_S - 3600, "events_per_second": 12.34, "living": 80, "lost": 3}
    run |= {"pid": os.getpid(), "lag_seconds": 0.5, "ring_bytes": 1 << 24, "ring_fill": 0.5, "http_port": 8123}
    store: dict[str, object] = {"rows": 10, "bytes": 3 << 20}
    shown = dict(lines(Standing(run, True, store=store, losses=[loss(1, cause=int(LossCause.SKIPPED), amount=4)]), Settings(), NOW_S))
    assert shown["recording since"].endswith(", 1 h 0 min ago") and shown["events/s"] == "12.3"
    assert shown["lost"] == "3 (skipped 0, renames left out 0, arguments cut short 0, arguments masked 0)"
    assert shown["ring"] == "50.0% of 16.0 MiB filled" and shown["behind"] == "500 ms"
    assert (
        shown["stored"] == "10 rows, 3.0 MiB on disk"
        and ":8123 with the credentials in /var/lib/tasktrail/credentials" in shown["other tools"]
    )
    assert shown["missing"].startswith("the kernel skipped the recorder (4 records) between ")
    assert "% of one CPU" in shown["run"]


def test_cost_of_a_process_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    assert process_cost(1, tmp_path) == {}


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (16 << 20, "16.0 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_for_people(number: int, shown: str) -> None:
    assert size(number) == shown
