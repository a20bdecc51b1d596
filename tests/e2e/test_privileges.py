"""Every program with exactly the rights that docs/privileges.md says it needs, and with each one less; all as an ordinary user."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from producers.prerequisites import LOADING, READING, Capability
from tasktrail import rights
from tests.contract.conftest import await_end
from tests.e2e.running import Place, Run, open_directory, wait_until
from tests.e2e.test_refusals import refusal

UID = 64_711
"""Nobody's: no account has it here, so nothing but the capabilities gives it any right."""
PRODUCE = ("produce", "--kafka", "127.0.0.1:1")
"""Its brokers do not answer: what is recorded goes into the spool."""


class Held(NamedTuple):
    """What /proc/PID/status says that a process may do: capability numbers as sets."""

    uid: int
    effective: frozenset[int]
    permitted: frozenset[int]
    bounding: frozenset[int]
    no_new_privs: bool


def held(pid: int) -> Held:
    """The rights of a process."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    sets = (frozenset(one for one in range(64) if int(lines[name], 16) >> one & 1) for name in ("CapEff", "CapPrm", "CapBnd"))
    return Held(int(lines["Uid"].split()[1]), *sets, lines["NoNewPrivs"] == "1")


def limited(capabilities: tuple[Capability, ...]) -> tuple[str, ...]:
    """The command before a command, which gives it that user and those capabilities alone."""
    chosen = ",".join(["-all", *(f"+{one.name.lower()}" for one in capabilities)])
    rights_of = (f"--inh-caps={chosen}", f"--ambient-caps={chosen}", f"--bounding-set={chosen}")
    return ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *rights_of)


@pytest.fixture
def mine() -> Iterator[Place]:
    """A place that belongs to the user: what an administrator makes once, or systemd at each start."""
    with open_directory() as directory:
        made = Place(directory, TASKTRAIL_RING_BYTES="16MiB")
        for path in (made.run_dir, made.state_dir, made.store, made.pin_dir):
            path.mkdir(mode=0o700)
            os.chown(path, UID, UID)
        try:
            yield made
        finally:
            made.clear()


def without(all_of_them: tuple[Capability, ...]) -> list[tuple[Capability, tuple[Capability, ...]]]:
    """Each one, and the others."""
    return [(one, tuple(other for other in all_of_them if other != one)) for one in all_of_them]


@pytest.mark.parametrize("arguments", [("record", "load"), ("run",), PRODUCE], ids=lambda arguments: arguments[0])
@pytest.mark.parametrize(("lacking", "others"), without(LOADING), ids=lambda one: one.name if isinstance(one, Capability) else "")
def test_one_less_to_load_is_named_with_its_cure(
    mine: Place, arguments: tuple[str, ...], lacking: Capability, others: tuple[Capability, ...]
) -> None:
    mine.prefix = limited(others)
    done = mine.command(*arguments)
    assert done.returncode == 4
    said = refusal(done)
    assert f"needs CAP_{lacking.name}, which" in said and "run it with sudo, or give it CAP_BPF CAP_PERFMON CAP_SYS_PTRACE" in said
    assert not list(mine.pin_dir.iterdir()) and not list(mine.store.iterdir())


@pytest.mark.parametrize("arguments", [("run",), PRODUCE, ("record", "dump", "x", "--seconds", "1")], ids=lambda arguments: arguments[0])
@pytest.mark.parametrize(("lacking", "others"), without(READING), ids=lambda one: one.name if isinstance(one, Capability) else "")
def test_one_less_to_read_is_named_with_its_cure(
    mine: Place, arguments: tuple[str, ...], lacking: Capability, others: tuple[Capability, ...]
) -> None:
    mine.prefix = limited(LOADING)
    assert mine.command("record", "load").returncode == 0
    mine.prefix = limited(others)
    done = mine.command(*arguments, *(() if arguments[0] == "record" else ("--no-load",)))
    assert done.returncode == 4
    assert f"needs CAP_{lacking.name}, which" in refusal(done) and "or give it CAP_BPF CAP_SYS_PTRACE" in refusal(done)


def test_without_arguments_nobody_has_to_look_into_processes(mine: Place) -> None:
    mine.env["TASKTRAIL_ARGV_BYTES"] = "0"
    mine.prefix = limited((Capability.BPF, Capability.PERFMON))
    run = mine.start()
    assert held(run.pid).effective == {Capability.BPF, Capability.PERFMON}


def test_run_with_exactly_these_records_all_and_gives_its_server_none(mine: Place) -> None:
    before = subprocess.Popen(["sh", "-c", "read _", "an argument of root's"], stdin=subprocess.PIPE)  # it is told by the snapshot alone
    try:
        mine.prefix = limited(LOADING)
        run = mine.start()
        mine.caught_up()
        mine.wait_stored(before.pid, where="kind = 'seen' AND has(argv, 'an argument of root''s')")
        assert held(run.pid)[:3] == (UID, frozenset(LOADING), frozenset(LOADING)) and held(run.pid).no_new_privs
        server = wait_until(run.server, "a ClickHouse")
        assert held(server)[:3] == (UID, frozenset(), frozenset()) and held(server).no_new_privs
        assert run.stop() == 0, run.said()
    finally:
        before.kill()
        before.wait()


def test_run_that_finds_the_recorder_loaded_needs_no_right_to_load(mine: Place) -> None:
    mine.prefix = limited(LOADING)
    assert mine.command("record", "load").returncode == 0
    mine.prefix = limited(READING)
    run = mine.start("--no-load")
    mine.caught_up()
    assert held(run.pid).effective == set(READING)


@pytest.mark.parametrize(("capabilities", "options"), [(LOADING, ()), (READING, ("--no-load",))], ids=["loading", "reading"])
def test_produce_with_exactly_these_ships(mine: Place, capabilities: tuple[Capability, ...], options: tuple[str, ...]) -> None:
    mine.prefix = limited(LOADING)
    assert mine.command("record", "load").returncode == 0
    mine.prefix = limited(capabilities)
    producer = Run(mine, (*PRODUCE, *options))
    mine.runs.append(producer)

    def spooled() -> bool:
        assert producer.process.poll() is None, producer.said()
        return any(path.stat().st_size for path in mine.state_dir.glob("spool/*.seg"))

    wait_until(spooled, "a batch in the spool")
    assert held(producer.pid)[:3] == (UID, frozenset(capabilities), frozenset(capabilities)) and held(producer.pid).no_new_privs
    assert producer.stop() == 0 and "Traceback" not in producer.said()


def test_a_recording_with_exactly_these(mine: Place) -> None:
    mine.prefix = limited(LOADING)
    assert mine.command("record", "load").returncode == 0
    mine.prefix = limited(READING)
    done = mine.command("record", "dump", str(mine.state_dir / "x.tt"), "--seconds", "0.2")
    assert done.returncode == 0 and "2 snapshots" in done.stderr, done.stderr
    mine.prefix = limited((Capability.BPF,))
    assert mine.command("record", "status").returncode == 0
    assert mine.command("record", "unload").returncode == 0


def test_as_root_run_gives_up_what_it_does_not_need(place: Place) -> None:
    kept = {*LOADING, *rights.AS_ROOT, *rights.WITH_SERVER}
    run = place.start()
    assert held(run.pid)[:4] == (0, kept, kept, kept) and held(run.pid).no_new_privs
    server = wait_until(run.server, "a ClickHouse")
    assert not held(server).effective and not held(server).permitted and held(server).uid != 0
    os.kill(server, signal.SIGKILL)
    assert await_end(server)
    run.wait_said("was started again")
    # Both are for root alone, and go on: the programs are loaded again, rows are stored by the new server.
    place.record("unload")
    place.caught_up()
    assert run.stop() == 0, run.said()


def test_as_root_produce_gives_up_what_it_does_not_need(place: Place) -> None:
    kept = {*LOADING, *rights.AS_ROOT}
    producer = Run(place, PRODUCE)
    place.runs.append(producer)
    producer.wait_said("batches go to")
    assert held(producer.pid)[:4] == (0, kept, kept, kept) and held(producer.pid).no_new_privs
    assert producer.stop() == 0


def test_a_directory_that_is_another_ones_is_named(mine: Place) -> None:
    mine.prefix = limited(LOADING)
    for path in (mine.run_dir, mine.pin_dir, mine.state_dir):
        os.chown(path, 0, 0)
        done = mine.command(*PRODUCE)
        assert done.returncode == 4 and str(path) in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr, done.stderr
        os.chown(path, UID, UID)
