"""The systemd units: systemd takes them, and each program does its work with exactly the rights that its unit leaves it."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from broker.cluster import Cluster
from broker.connection import Sender
from deploy.local.hosts import Identity, boot
from producers.prerequisites import LOADING, READING
from queries.recordings import batches
from schemas import topics
from schemas.batch import BatchKind, encode_batch, frames
from schemas.events import Seen, decode_record
from schemas.topics import MACHINE, SESSION, VERSION
from store.address import Address
from store.connection import Connection
from tasktrail.demo import RECORDING, open_recording
from tasktrail.settings import read_settings
from tests.contract.conftest import await_end
from tests.e2e.running import ROOT, Place, wait_until
from tests.fleet.kafka_for_tests import settings_of
from tests.fleet.producing import Producing, hole_bytes, joined
from tests.fleet.unit_sandbox import CAPABILITIES, Unit

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
INSTALLED = "/opt/tasktrail/bin/tasktrail"
EXPOSURE_MAX = {"tasktrail-recorder": 2.5, "tasktrail-produce": 2.5, "tasktrail-run": 3.2, "tasktrail-stream@": 1.5}
"""By `systemd-analyze security`: 10 is a program that may do everything."""
NOBODY = 65534


def unit(name: str) -> Unit:
    """The unit of that name."""
    return Unit(ROOT / "deploy" / "systemd" / f"{name}.service")


def command_of(this: Unit, instance: str = "1") -> list[str]:
    """What the unit starts, here: the program of this environment for the installed one."""
    words = [word.replace("%H", "here").replace("%i", instance) for word in shlex.split(this.one("ExecStart"))]
    assert words[0] == INSTALLED
    return [sys.executable, "-m", "tasktrail", *words[1:]]


def sandbox(path: Path, *writable: Path) -> tuple[str, ...]:
    """What stands before a command that is to run as under that unit."""
    return (sys.executable, "-m", "tests.fleet.unit_sandbox", str(path), *(f"--writable={each}" for each in writable), "--")


def without(this: Unit, capability: str, directory: Path) -> Path:
    """The unit with one capability less."""
    text = this.path.read_text()
    changed = re.sub(rf"^(CapabilityBoundingSet=.*?) ?\bCAP_{capability}\b", r"\1", text, flags=re.M)
    assert changed != text
    path = directory / this.path.name
    path.write_text(changed)
    return path


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "tasktrail"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for each in (ROOT / "deploy" / "systemd").glob("tasktrail*"):
        (tmp_path / each.name).write_text(each.read_text().replace(INSTALLED, str(program)))
    name = path.name.replace("@.", "@1.")
    if name != path.name:
        (tmp_path / path.name).rename(tmp_path / name)
    done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    assert level and float(level[1]) <= EXPOSURE_MAX[path.stem]


def ordering_cycles(recorder: str, directory: Path) -> str:
    """What systemd says of cycles when the recorder's unit has its place in the boot."""
    wants = directory / "sysinit.target.wants"
    wants.mkdir(parents=True)
    (directory / "tasktrail-recorder.service").write_text(recorder.replace(INSTALLED, "/bin/true"))
    (wants / "tasktrail-recorder.service").symlink_to(directory / "tasktrail-recorder.service")
    command = ["systemd-analyze", "verify", "multi-user.target", "sysinit.target", "tasktrail-recorder.service"]
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return "\n".join(line for line in done.stderr.splitlines() if "cycle" in line)


def test_the_loader_has_a_place_in_the_boot(tmp_path: Path) -> None:
    text = unit("tasktrail-recorder").path.read_text()
    assert ordering_cycles(text, tmp_path / "right") == ""
    # Before what it needs it could not be: so a cycle would have been told.
    early = text.replace("Before=sysinit.target", "Before=sysinit.target local-fs.target")
    assert "local-fs.target" in ordering_cycles(early, tmp_path / "wrong")


def test_the_units_say_what_the_programs_are() -> None:
    assert set(EXPOSURE_MAX) == {path.stem for path in UNITS}
    for path in UNITS:
        this = Unit(path)
        assert this.capabilities < set(CAPABILITIES) and "SYS_ADMIN" not in this.capabilities
        assert this.one("NoNewPrivileges") == "yes" and this.one("ProtectSystem") == "strict" and this.system_calls is not None
        done = subprocess.run([*command_of(this), "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        # Whoever reads the kernel must see every process, and the kernel's clock.
        assert not {"ptrace", "process_vm_writev"} & this.system_calls
        if path.stem != "tasktrail-stream@":
            hiding = {"PrivatePIDs", "PrivateUsers", "ProtectProc", "ProcSubset", "PrivateIPC"}
            assert not [name for name in hiding if this.one(name)]
    assert unit("tasktrail-recorder").capabilities == {one.name for one in LOADING}
    assert unit("tasktrail-produce").capabilities == {one.name for one in READING} < unit("tasktrail-run").capabilities
    early = unit("tasktrail-recorder")
    assert early.one("DefaultDependencies") == "no" and "sysinit.target" in early.words("Before") + early.words("WantedBy")
    assert unit("tasktrail-stream@").capabilities == set()


def test_the_examples_of_settings_are_settings(tmp_path: Path) -> None:
    directory = ROOT / "deploy" / "systemd"
    host = read_settings({}, {}, str(directory / "tasktrail.toml.example"))
    assert host.settings.kafka and host.settings.metrics.endswith(":9477")
    pairs = [line.split("=", 1) for line in (directory / "stream.env.example").read_text().splitlines() if line[:1] != "#"]
    worker = read_settings(
        {}, {name: value for name, value in pairs if name != "TASKTRAIL_PASSWORD"}, str(directory / "tasktrail.toml.example")
    )
    assert worker.settings.store.startswith("clickhouses://") and worker.settings.metrics.endswith(":9478")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of another user, with an argument to know it by."""
    process = subprocess.Popen(["/usr/bin/tail", "-f", "/dev/null"], user=NOBODY, group=NOBODY, extra_groups=[])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def load_as_unit(place: Place, directory: Path) -> None:
    """What tasktrail-recorder.service does."""
    here = ["--pin-dir", str(place.pin_dir), "--run-dir", str(place.run_dir), "--state-dir", str(place.state_dir)]
    command = [*sandbox(unit("tasktrail-recorder").path, directory), *command_of(unit("tasktrail-recorder")), *here]
    done = subprocess.run(command, env=place.env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "a new ring was made" in done.stderr, done.stderr


def seen(producing: Producing, pid: int) -> list[Seen]:
    """What the snapshots that arrived say of a process, the latest one last."""
    found = []
    for batch in producing.wait_arrived():
        if batch.kind == BatchKind.SNAPSHOT:
            records = [decode_record(batch.body, at, size) for at, size in frames(batch.body)]
            found += [record for record in records if isinstance(record, Seen) and record.tgid == pid]
    return found


def test_recorder_and_shipper_work_with_their_units_rights(producing: Producing, sleeper: subprocess.Popen[bytes]) -> None:
    place, this = producing.place, unit("tasktrail-produce")
    place.env["TASKTRAIL_METRICS"] = "127.0.0.1:0"
    producing.make_topics()
    load_as_unit(place, place.directory)
    snapshots = sorted(place.run_dir.glob("snapshots/*.batch"))
    producing.prefix = sandbox(this.path, place.directory)
    producing.start(*command_of(this)[4:])
    assert snapshots and "--no-load" in command_of(this)
    for number in range(300):
        subprocess.run(["/bin/true", f"under the unit {number}"], check=True)
    removed = next(path for path in sorted(place.pin_dir.iterdir()) if "link" in path.name)
    removed.unlink()
    producing.wait_said("it was put back")
    assert removed.exists()
    batches_here = producing.wait_arrived()
    assert hole_bytes(batches_here) == 0
    ours = [row for row in joined(batches_here).images.values() if row.argv[1:] and row.argv[1].startswith(b"under the unit")]
    assert len(ours) == 300 and all(row.exit_code == 0 for row in ours)
    told = seen(producing, sleeper.pid)
    assert len(told) >= 2 and all(record.argv == (b"/usr/bin/tail", b"-f", b"/dev/null") for record in told)
    status = Path(f"/proc/{producing.process.pid}/status").read_text() if producing.process else ""
    effective = int(re.search(r"CapEff:\s+(\w+)", status)[1], 16)  # type: ignore[index]
    assert {name for number, name in enumerate(CAPABILITIES) if effective >> number & 1} == this.capabilities
    assert re.search(r"NoNewPrivs:\s+1\b", status) and re.search(r"Seccomp:\s+2\b", status)
    producing.stop()


@pytest.mark.parametrize("capability", ["BPF", "SYS_PTRACE"])
def test_the_shipper_says_which_capability_it_lacks(place: Place, tmp_path: Path, capability: str) -> None:
    path = without(unit("tasktrail-produce"), capability, tmp_path)
    command = [*sandbox(path, place.directory), *command_of(unit("tasktrail-produce")), "--kafka", "127.0.0.1:1"]
    done = subprocess.run(command, env=place.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4 and f"CAP_{capability}," in done.stderr, done.stderr


def test_one_host_by_itself_works_with_its_units_rights(place: Place) -> None:
    this = unit("tasktrail-run")
    load_as_unit(place, place.directory)
    command = [*sandbox(this.path, place.directory), *command_of(this)]
    said = place.directory / "run.stderr"
    with said.open("wb") as file:
        run = subprocess.Popen(command, env=place.env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_until(lambda: run.poll() is not None or place.status().get("pid") == run.pid, "recording", 240)
        assert run.poll() is None, said.read_text()
        done = subprocess.Popen(["/bin/true", "under the unit"])
        done.wait()
        place.wait_stored(done.pid)
        children = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
        server = next(pid for pid in children if b"server_child" in Path(f"/proc/{pid}/cmdline").read_bytes())
        assert Path(f"/proc/{server}").stat().st_uid != 0
        run.terminate()
        assert run.wait(30) == 0, said.read_text()
        assert await_end(server)
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()


@pytest.mark.parametrize("capability", ["CHOWN", "FOWNER", "SETGID", "SETUID"])
def test_one_host_by_itself_needs_each_of_its_capabilities(place: Place, tmp_path: Path, capability: str) -> None:
    load_as_unit(place, place.directory)
    path = without(unit("tasktrail-run"), capability, tmp_path)
    command = [*sandbox(path, place.directory), *command_of(unit("tasktrail-run"))]
    done = subprocess.run(command, env=place.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_a_worker_needs_no_root_and_no_capability(own_cluster: Cluster, place: Place, addresses: dict[str, Address]) -> None:
    this, host_id = unit("tasktrail-stream@"), uuid4()
    place.env |= settings_of(own_cluster)
    assert place.command("topics", "create", "--replication", "1", "--partitions", "4").returncode == 0
    with open_recording() as file:
        shipped = [batch for _, batch in boot(list(batches(file, RECORDING)), Identity(host_id, uuid4(), b"web-1"), 2 * 10**18, 5.0)]
    sender = Sender(own_cluster)
    headers = {VERSION: topics.MESSAGE_VERSION, SESSION: bytes(8), MACHINE: bytes(8)}
    for batch in shipped:
        assert sender.send(topics.EVENTS, str(batch.host_id).encode(), encode_batch(batch), headers)
    assert sender.flush(30) == 0
    sender.close()
    state = place.directory / "worker"
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    writer = addresses["writer"]
    env = {**place.env, "TASKTRAIL_STORE": str(writer), "TASKTRAIL_PASSWORD": writer.password}
    command = [word.replace("/var/lib/tasktrail-stream/1", str(state)) for word in command_of(this)]
    said = place.directory / "worker.stderr"
    with said.open("wb") as log:
        worker = subprocess.Popen([*sandbox(this.path, state), *command], env=env, cwd=ROOT, stdout=log, stderr=log)
    try:
        with Connection(addresses["reader"]) as reader:

            def rows() -> int:
                assert worker.poll() is None, said.read_text()
                return int(reader.query(f"SELECT count() FROM images WHERE host_id = '{host_id}'").rows[0][0])

            wait_until(lambda: rows() > 500, "rows of the recording", 240)
        assert Path(f"/proc/{worker.pid}").stat().st_uid == NOBODY
        assert re.search(r"CapBnd:\s+0+\n", Path(f"/proc/{worker.pid}/status").read_text())
        worker.terminate()
        assert worker.wait(20) == 0, said.read_text()
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
