"""The recording of a real host that `tasktrail demo` replays: its rows, and what they must say whatever the join does.

The rows are compared with ``web17/web-17.jsonl.xz``; ``CORPUS_BLESS=1`` writes it anew. ``web17/README.md`` says how the recording came
to be. The other tests know the host's story and look for wrong joins without that file.
"""

import lzma
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest

from queries.recordings import batches
from schemas.batch import Batch
from schemas.identity import NIL
from schemas.rows import EndKind, ImageKind, ImageRow, LossCause
from tasktrail.demo import RECORDING, open_recording
from tests.corpus.test_corpus import BLESS, single_records, text_of
from tests.sim.oracle import Store, store_of
from tests.sim.scenario import joined

EXPECTED = Path(__file__).parent / "web17" / "web-17.jsonl.xz"


@pytest.fixture(scope="module")
def log() -> list[Batch]:
    """The recording's batches."""
    with open_recording() as file:
        return list(batches(file, RECORDING))


@pytest.fixture(scope="module")
def store(log: list[Batch]) -> Store:
    """What remains in the store."""
    return store_of(joined(log)[0])


@pytest.fixture(scope="module")
def images(store: Store) -> list[ImageRow]:
    """All images, in the order in which they began."""
    return sorted(store.images.values(), key=lambda row: (row.begin_boottime, row.start_boottime, row.exec_id))


def named(images: Iterable[ImageRow], comm: str) -> list[ImageRow]:
    """The images of that name."""
    return [row for row in images if row.comm == comm.encode()]


def creators(images: list[ImageRow], image: ImageRow) -> str:
    """The names of the processes on the way to the image, by what each ran when it created the next: found by creator links alone."""
    by_key = {(row.task_id, row.exec_id): row for row in images}
    names = [image.comm.decode()]
    while image.creator_id != NIL:
        image = by_key[image.creator_id, image.creator_exec_id]
        names.insert(0, image.comm.decode())
    return " > ".join(names)


LOGIN = "systemd > sshd > sshd > sshd > bash"


def test_the_rows_are_the_expected_ones(log: list[Batch]) -> None:
    text = text_of(joined(log)[0])
    if BLESS:
        EXPECTED.write_bytes(lzma.compress(text.encode(), preset=9))
    wanted, got = lzma.decompress(EXPECTED.read_bytes()).decode().splitlines(), text.splitlines()
    missing, new = sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))
    assert not missing and not new, "\n".join(["missing:", *missing[:3], "instead:", *new[:3]])
    assert len(wanted) == len(got)


def test_the_rows_do_not_depend_on_where_batches_are_cut(log: list[Batch]) -> None:
    same = text_of(joined(single_records(log))[0]) == text_of(joined(log)[0])
    assert same


def test_nothing_was_lost_but_what_was_before_the_recorder(store: Store) -> None:
    assert [(row.cause, row.begin_boottime) for row in store.losses.values()] == [(LossCause.NO_RECORDER, 0)]


def test_every_chain_is_known_as_far_as_the_recorder_could_see(images: list[ImageRow]) -> None:
    assert len(images) > 900
    for row in images:
        assert row.kind != ImageKind.UNKNOWN and row.end_kind in (EndKind.LIVING, EndKind.EXIT, EndKind.EXEC)
        assert (row.chain_complete or row.chain_before) and not row.chain_lost and not row.chain_cut
        # Process 1 ran the initramfs' programs before it was systemd, and (sd-pam) is older than the program that its parent runs now.
        unknown = [at for at, kind in enumerate(row.chain_kind) if kind == ImageKind.UNKNOWN]
        first = row.chain_tgid[0] if row.chain_tgid else 2
        assert unknown == ([0] if first == 1 or (row.comm, first) == (b"(sd-pam)", 0) else []), row


def test_every_chain_is_its_creators_and_what_it_ran_itself(images: list[ImageRow]) -> None:
    by_key = {(row.task_id, row.exec_id): row for row in images}
    for row in images:
        own = [one for exec_id in range(row.exec_id + 1) if (one := by_key.get((row.task_id, exec_id))) and one.kind != ImageKind.FORK]
        if row.creator_id == NIL:
            continue
        creator = by_key[row.creator_id, row.creator_exec_id]
        if row.kind != ImageKind.SEEN:
            names = [*creator.chain_comm, *(one.comm for one in own if one.exec_id > creator.exec_id)]
            assert list(row.chain_comm) == names, row
        assert row.ancestor_ids == (creator.task_id, *creator.ancestor_ids)
        assert creator.begin_boottime <= row.start_boottime
        if creator.end_kind != EndKind.LIVING:
            assert row.start_boottime <= creator.begin_boottime + creator.duration


def test_processes_that_had_one_pid_had_it_one_after_another(images: list[ImageRow]) -> None:
    had: dict[int, dict[UUID, list[ImageRow]]] = defaultdict(lambda: defaultdict(list))
    for row in images:
        had[row.tgid][row.task_id].append(row)
    shared = {tgid: list(tasks.values()) for tgid, tasks in had.items() if len(tasks) > 1}
    assert len(shared) > 100
    for tasks in shared.values():
        for earlier, later in pairwise(tasks):
            last = earlier[-1]
            assert last.end_kind == EndKind.EXIT
            assert last.begin_boottime + last.duration <= later[0].start_boottime


def test_a_login_compiles(images: list[ImageRow]) -> None:
    assert {creators(images, row) for row in named(images, "cc1")} == {f"{LOGIN} > make > cc > cc1"}
    assert len(named(images, "cc1")) == 8
    assert {creators(images, row) for row in named(images, "ld")} == {f"{LOGIN} > make > cc > collect2 > ld"}
    assert {row.login_user for row in named(images, "cc1")} == {b"alice"}
    assert {row.cwd for row in named(images, "cc1")} == {b"/home/alice/hello"}
    assert {row.argv[:3] for row in named(images, "make")} == {(b"make",), (b"make", b"clean"), (b"make", b"-j2")}


def test_a_package_is_installed_as_root_by_alice(images: list[ImageRow]) -> None:
    (script,) = named(images, "greet.postinst")
    assert creators(images, script) == f"{LOGIN} > sudo > sudo > apt-get > dpkg > greet.postinst"
    assert (script.user, script.login_user) == (b"root", b"alice")
    (hello,) = named(images, "greet")
    assert (hello.exe, hello.filename, hello.argv[:2]) == (b"/usr/bin/dash", b"/usr/bin/greet", (b"/bin/sh", b"/usr/bin/greet"))


def test_a_daemon_keeps_its_creators(images: list[ImageRow]) -> None:
    living = [row for row in named(images, "beacond") if row.end_kind == EndKind.LIVING]
    assert sorted(creators(images, row) for row in living) == [
        f"{LOGIN} > beacond > beacond > beacond",
        f"{LOGIN} > beacond > beacond > beacond > beacond",
        f"{LOGIN} > beacond > beacond > beacond > beacond",
    ]
    assert sorted(row.renamed for row in living) == [b"", b"beacond: collec", b"beacond: send"]


def test_how_things_ended(images: list[ImageRow]) -> None:
    (crash,) = named(images, "crash")
    assert (crash.exit_signal, crash.core_dumped) == (11, 0)
    assert Counter(row.exit_code for row in images if row.comm == b"bash" and row.kind == ImageKind.FORK)[127] == 1
    reports = [row for row in images if row.comm == b"python3" and row.exit_code == 7]
    assert [row.kind for row in reports] == [ImageKind.FORK] * 2
    cron = [row for row in named(images, "rotate-reports") if row.kind == ImageKind.EXEC]
    assert cron and all(creators(images, row) == "systemd > cron > cron > sh > rotate-reports" for row in cron)


def test_one_process_may_be_several_programs(images: list[ImageRow]) -> None:
    (date,) = [row for row in images if row.argv == (b"date", b"+%Y") and creators(images, row).endswith("bash > sh > date")]
    (shell,) = [row for row in images if (row.task_id, row.exec_id) == (date.creator_id, date.creator_exec_id)]
    programs = [row.comm for row in images if row.task_id == shell.task_id]
    assert programs == [b"bash", b"sh", b"sleep"]
    threads = [row for row in images if row.argv == (b"true", b"by a thread")]
    assert [row.chain_comm[-2:] for row in threads] == [(b"threads", b"true")]


def test_what_hides_is_seen(images: list[ImageRow]) -> None:
    deleted, memory = (row for row in images if row.chain_comm[-2:-1] == (b"python3",) and row.argv[-1:] in ((b"1801",), (b"1802",)))
    for row in (deleted, memory):
        assert creators(images, row).startswith("systemd > shop.py > sh > python3 > ")
        assert (row.user, row.end_kind) == (b"www-data", EndKind.LIVING)
    assert (deleted.exe, deleted.argv[0], deleted.flags) == (
        b"/tmp/.cache-17 (deleted)",
        b"/usr/sbin/sshd",
        (b"exe_deleted",),
    )
    assert memory.exe.startswith(b"/memfd:a") and memory.argv[0] == b"[kworker/0:1]"


def test_a_container_has_pids_of_its_own(images: list[ImageRow]) -> None:
    inside = [row for row in images if row.ns_pid != row.tgid]
    assert {row.comm for row in inside} >= {b"sh", b"ps", b"wc", b"hostname", b"sleep"}
    assert all(creators(images, row).startswith(f"{LOGIN} > sudo > sudo > unshare > ") for row in inside)


def test_names_are_kept_as_they_are(images: list[ImageRow]) -> None:
    odd = [row for row in images if row.exe.startswith(b"/tmp/odd-")]
    assert len(odd) == 9
    for row in odd:
        name = row.argv[0]
        assert row.exe.endswith(b"/" + name) and row.comm == name[:15]
        assert row.argv[1:] == (b"one argument", b"", b"--x=\x1b[2J\r\n> root(0) => " + name, b"\xf0\x9f\x90\xa7 \xc3\x28")
    (numbers,) = named(images, "echo")
    assert numbers.argc == 2001 and sum(len(one) + 1 for one in numbers.argv) <= 4097 and b"argv_cut" in numbers.flags
