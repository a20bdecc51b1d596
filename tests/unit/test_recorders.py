"""The comparison with other recorders: what is computed and shown, and how each tool's output is read. The samples are real output."""

import json
import struct
from pathlib import Path

import pytest

from tests.bench.recorders import acct, audit, cgroup, connector, facts, ours, page, storm, tracing
from tests.bench.recorders.facts import Said, Seen, Truth
from tests.bench.recorders.measure import Row

IDS = "auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295"
NAMES = 'AUID="unset" UID="root" GID="root" EUID="root" SUID="root" FSUID="root" EGID="root" SGID="root" FSGID="root"'


def audited(serial: int, words: str, call: str) -> str:
    """A SYSCALL record in the enriched format; what the samples have in common is written once."""
    head = f"type=SYSCALL msg=audit(1795635296.891:{serial}): arch=c000003e {words} {IDS}"
    return f'{head} comm="sh" exe="/usr/bin/dash" key=(null)\x1dARCH=x86_64 SYSCALL={call} {NAMES}\n'


AUDIT = [
    audited(1, "syscall=59 success=yes exit=0 a0=7f3aad848820 a1=7 a2=7 a3=8 items=2 ppid=122431 pid=123841", "execve"),
    audited(2, "syscall=56 success=yes exit=123842 a0=1200011 a1=0 a2=0 a3=7 items=0 ppid=122431 pid=123841", "clone"),
    audited(3, "syscall=231 a0=3 a1=e7 a2=3c a3=7eff77959ac0 items=0 ppid=123841 pid=123842", "exit_group"),
    audited(4, "syscall=59 success=no exit=-2 a0=560b6eade980 a1=0 a2=0 a3=8 items=1 ppid=123841 pid=123850", "execve"),
    'type=EXECVE msg=audit(1795635296.891:1): argc=1 a0="/bin/true"\n',
]
FORKSTAT = """Time     Event   PID Info   Duration Process
19:10:29 exit  13168   1024  unknown <unknown>
19:10:29 fork  12967 parent          storm 200 1 /srv/tiny 
19:10:29 fork  13169 child           <unknown>
19:10:29 exec  13169                 <unknown>
19:10:29 exit  13169   1280   0.000s <unknown>
"""
EXTRACE = """13163+ /srv/tiny x x x x x
13163- /srv/tiny exited status=6 time=0.000s
13168+ ''
13168- '' exited status=4 time=0.000s
"""
EXTRACE_SAID = "extrace: process vanished before notification: pid 13169\n"
BPFTRACE = """Attaching 3 probes...
fork 14381 14204
exec 14381 /bin/true
exit 14381 true
Lost 1234 events
"""
PERF = """            tiny  1135 sched:sched_process_exec: filename=/srv/tiny pid=1135 old_pid=1135
            tiny  1135 sched:sched_process_exit: comm=tiny pid=1135 prio=120 group_dead=true
           storm  1099 sched:sched_process_fork: comm=storm pid=1099 child_comm=storm child_pid=1136
"""
ACCOUNTS = bytes.fromhex(
    "0103000000010000000000000000000052ef01006de401006238076b00000000000000002c0a4b00000011000000000073746f726d0000000000000000000000"
    "0003000000000000000000000000000047ef01003fde01006238076b0000000000000000000000000000000000000000616363746f6e00000000000000000000"
)
NETLINK = """sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 11  4711       00000001 0        0        0     2        0        99
0000000000000000 11  4712       00000000 0        0        0     2        0        98
0000000000000000 9   4713       00000001 0        0        0     2        0        97
"""
TRUTH = Truth(frozenset({1, 2, 3, 4}), frozenset({1, 2}), frozenset({1, 2, 3}), 1.0)


def test_audit_takes_a_fork_from_what_the_call_returned() -> None:
    assert audit.read_log(AUDIT) == Seen(frozenset({123842}), frozenset({123841}), frozenset({123842}))


def test_debians_audit_configuration_keeps_all_but_places(tmp_path: Path) -> None:
    changed = audit.configuration("log_file = /var/log/audit/audit.log\nfreq = 50\nnum_logs = 5\n##name = x\n", tmp_path)
    assert changed == f"log_file = {tmp_path}/log/audit.log\nfreq = 50\nnum_logs = 999\n##name = x\n"


def test_forkstat_names_the_child_of_a_fork() -> None:
    assert connector.read_forkstat(FORKSTAT.splitlines()) == Seen(frozenset({13169}), frozenset({13169}), frozenset({13168, 13169}))


def test_extrace_has_seen_an_exec_of_which_it_names_the_pid_alone() -> None:
    seen = connector.read_extrace(EXTRACE.splitlines(), EXTRACE_SAID)
    assert seen == Seen(None, frozenset({13163, 13168, 13169}), frozenset({13163, 13168}))


def test_a_listener_is_one_that_subscribed_to_the_connector() -> None:
    assert [connector.listens(NETLINK, pid) for pid in (4711, 4712, 4713)] == [True, False, False]


def test_bpftrace_says_what_it_lost() -> None:
    one = frozenset({14381})
    assert tracing.read_bpftrace(BPFTRACE.splitlines()) == Seen(one, one, one)
    assert tracing.LOST.findall(BPFTRACE) == ["1234"]


def test_perf_names_the_child_of_a_fork() -> None:
    assert tracing.read_perf(PERF.splitlines()) == Seen(frozenset({1136}), frozenset({1135}), frozenset({1135}))


def test_accounts_tell_who_did_not_exec() -> None:
    both = frozenset({0x1EF52, 0x1EF47})
    assert acct.read_accounts(ACCOUNTS + b"half a record") == Seen(both, frozenset({0x1EF47}), both)


def test_rows_are_forks_where_the_creator_is_known() -> None:
    rows = [(5, "exec", "exit", 1), (6, "fork", "exit", 1), (7, "exec", "living", None)]
    seen, said = ours.read_rows(rows, [("ring_full", 4), ("no_recorder", 0)])
    assert seen == Seen(frozenset({5, 6}), frozenset({5, 7}), frozenset({5, 6}))
    assert said == Said(4, words="no_recorder", bounded=True)


def test_the_storms_list_is_the_truth() -> None:
    lines = [(11, 1, 1, 1 << 8), (12, 1, 1, 99 << 8), (13, 1, 0, 0), (0, 0, 0, 0)]
    data = struct.pack("<qq", 5, 5 + 2 * 10**9) + b"".join(struct.pack("<iiii", *line) for line in lines)
    assert storm.read_list(data, "exec") == Truth(frozenset({11, 12, 13}), frozenset({11}), frozenset({11, 12}), 2.0)
    with pytest.raises(AssertionError, match="given twice"):
        storm.read_list(data + struct.pack("<iiii", 11, 1, 1, 0), "exec")


def test_missing_is_what_the_truth_has_and_the_recorder_has_not() -> None:
    seen = Seen(None, frozenset({2, 9}), frozenset({1, 2, 3}))
    assert facts.missing(TRUTH, seen) == {"execs": (1, 2), "exits": (0, 3)}
    assert facts.missing(TRUTH._replace(execs=frozenset()), seen) == {"exits": (0, 3)}
    assert facts.add([{"execs": (1, 2)}, {"execs": (0, 2), "exits": (1, 1)}]) == {"execs": (1, 4), "exits": (1, 1)}


def test_no_loss_is_shown_as_none() -> None:
    assert [facts.percent(*pair) for pair in ((0, 20_000), (1, 20_000), (150, 1000), (3, 3))] == ["0", "0.005", "15.0", "100.0"]


def test_a_round_whose_bare_storms_differ_is_dropped() -> None:
    rounds = facts.compare([1.0, 1.05, 2.0, 2.0], [1.5, 9.0, 3.0])
    assert rounds.dropped == 1
    assert rounds.ratios == pytest.approx([3.0 / 2.05, 1.5])
    assert facts.compare([1.0, 2.0], [1.0]).slowdown is None


@pytest.mark.parametrize(
    ("said", "missed", "words", "honest"),
    [
        (Said(None), 0, "nothing to say", False),
        (Said(None), 7, "says nothing", False),
        (Said(0), 0, "true (0)", True),
        (Said(0, "records"), 0, "true (0)", True),
        (Said(7), 7, "true", True),
        (Said(6), 7, "says 6 events; 7 events missing", False),
        (Said(7, "records"), 7, "says 7 records; 7 events missing", False),
        (Said(0, bounded=True), 7, "says between when and when; 7 missing", True),
    ],
)
def test_what_is_said_is_held_to_the_truth(said: Said, missed: int, words: str, honest: bool) -> None:
    lost = {"forks": (missed, 10)}
    assert (facts.verdict(lost, said), facts.is_true(lost, said)) == (words, honest)


def test_control_groups_are_found_in_both_versions() -> None:
    first = "cgroup /g/cpu cgroup rw,cpu 0 0\ncgroup /g/cpuacct cgroup rw,cpuacct 0 0\ncgroup2 /g/unified cgroup2 rw 0 0\n"
    assert cgroup.controllers(first) == {"cpu": (Path("/g/cpu"), 1), "cpuacct": (Path("/g/cpuacct"), 1)}
    assert cgroup.controllers("cgroup2 /g cgroup2 rw 0 0\n") == {"cpu": (Path("/g"), 2), "cpuacct": (Path("/g"), 2)}
    assert cgroup.controllers("proc /proc proc rw 0 0\n") == {}


def result(name: str, cannot: str = "", **rows: Row) -> page.Result:
    """A recorder's result, rows by name with _ for a space."""
    return page.Result(name, "1", cannot, {label.replace("_", " "): row for label, row in rows.items()})


def test_the_table_shows_what_cannot_run_and_why() -> None:
    lines = page.table([result("perf record", "no tracefs"), result("acct", exec_W1=Row(failed="has no process"))], ["exec W1"])
    assert [line[-1] for line in lines] == ["cannot run here: no tracefs", "has no process"]
    assert page.terminal(lines).splitlines()[1].startswith("perf record")
    assert page.markdown(lines).count("\n") == 3


def test_a_row_shows_its_loss_and_the_rounds_that_were_dropped() -> None:
    row = Row({"forks": (1, 4), "exits": (0, 4)}, [1.1, 1.3, 1.2], 2, 3.14159, 1234.5, 50.0, "says nothing")
    assert page.cells("x", "fork W1", row) == ["x", "fork W1", "25.0", "-", "0", "1.20 [2]", "3.1", "1,234", "says nothing"]
    assert page.slowdown(Row(dropped=3)) == "? [3]"
    assert page.slowdown(Row(ratios=[2.0], dropped=1)) == "~2.00"


def test_aims_are_missed_openly() -> None:
    mine = result(
        "tasktrail run", exec_W1=Row({"forks": (1, 9)}, [1.2], cpu_us=4.0, honest=True), switched_off=Row({"forks": (5, 9)}, [1.0])
    )
    said = page.aims([mine, result("auditd", exec_W1=Row({}, [1.4], cpu_us=40.0))])
    assert "| exec W1: slowdown | 1.20 | 1.05 | **missed** |" in said
    assert "| exec W1: excess to auditd's | 0.50 | 0.25 | **missed** |" in said
    assert "| exec W1: CPU to auditd's | 0.10 | 0.35 | met |" in said
    assert "| missing, all rows but the last | 1 | 0 | **missed** |" in said
    assert "| rows where what it says of its loss is not true | switched off | 0 | **missed** |" in said


def test_the_page_holds_every_part() -> None:
    written = page.page([result("auditd", exec_W1=Row({}, [1.4]))], "a machine", 20_000, 5)
    assert "a machine" in written and "20,000 processes" in written and "| auditd | exec W1 |" in written
    assert json.dumps(written).count("{") == 0
