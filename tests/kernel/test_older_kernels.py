"""The branches that this kernel does not take: what older ones lack is left out, and the records stay right."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_tools import output

from producers import loader
from producers.bpf import pins, probes, source, syscall
from producers.bpf.btf import Btf
from producers.ring import Ring
from schemas import events
from schemas.batch import frames


@pytest.fixture
def older() -> Iterator[Ring]:
    """The ring of programs that neither know which thread is the last one nor have audit ids nor typed arguments; nothing of it is pinned.

    Two copies are attached, as during a handover.
    """
    program = source.generate(Btf.of_kernel(), source.Settings())
    for name in ("HAVE_GROUP_DEAD", "HAVE_AUDIT"):
        assert f"#define {name} 1\n" in program.text, "this kernel is an older one itself"
        program = program._replace(text=program.text.replace(f"#define {name} 1\n", f"#define {name} 0\n"), types={})
    maps = loader._create_maps(source.Settings())
    links = []
    for _ in range(2):
        programs = loader._load_programs(program, maps)
        links += [
            syscall.attach_raw_tracepoint(programs.descriptors[function], tracepoint)
            for function, tracepoint in source.TRACEPOINTS.values()
        ]
        for fd in programs.descriptors.values():
            os.close(fd)
    ring = Ring(maps[pins.RING])
    yield ring
    ring.close()
    for fd in (*links, *maps.values()):
        os.close(fd)


def records_of(ring: Ring) -> list[events.Record]:
    """All that lies in the ring."""
    body = ring.finished_after(ring.consumer())
    return [events.decode_record(body, at, size) for at, size in frames(body)]


def test_threads_that_end_together_give_one_exit_even_with_two_copies(older: Ring, programs: Path) -> None:
    children = {int(line[0]): int(line[1]) for line in output(programs / "ending", "together", "1000", "4")}
    records = records_of(older)
    ends = Counter(record.tgid for record in records if isinstance(record, events.Exit) and record.tgid in children)
    assert ends == Counter(dict.fromkeys(children, 1))
    assert all(record.status == children[record.tgid] for record in records if isinstance(record, events.Exit) and record.tgid in children)


def test_without_audit_the_ids_are_unset(older: Ring, programs: Path) -> None:
    output(programs / "ending", "exec", "1")
    kinds = [record for record in records_of(older) if isinstance(record, events.Fork | events.Exec)]
    assert len(kinds) >= 3
    assert {(record.loginuid, record.session) for record in kinds} == {(2**32 - 1, 2**32 - 1)}


def test_the_programs_compile_for_every_size_of_argv(programs: Path) -> None:
    for argv_bytes in (0, 1, 128, 129, 4096):
        chosen = source.Settings(argv_bytes=argv_bytes)
        program = source.generate(Btf.of_kernel(), chosen)
        maps = loader._create_maps(chosen)
        loaded = loader._load_programs(program, maps)
        helped = loader._load_programs(program._replace(types={}), maps)
        for fd in (*loaded.descriptors.values(), *helped.descriptors.values()):
            assert syscall.program_info(fd).verified < 500_000, "half of what the verifier allows"
            os.close(fd)
        for fd in maps.values():
            os.close(fd)


def test_what_does_not_compile_is_one_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(probes.Unavailable, match="could not be loaded"):
        probes.load("int on_fork(void *ctx) { return nothing; }", {})
    assert "nothing" in capfd.readouterr().err


def test_where_typed_arguments_are_refused_raw_tracepoints_remain(programs: Path) -> None:
    """on_exec is given the type of a tracepoint with fewer arguments, which the verifier refuses: all four are raw ones then, and work."""
    program = source.generate(Btf.of_kernel(), source.Settings())
    mixed = {**program.types, "on_exec": program.types["on_rename"]}
    for types, refusal in ((mixed, "on_exec: "), ({}, "the tracepoint of on_fork has no type"), (program.types, "")):
        maps = loader._create_maps(source.Settings())
        loaded = loader._load_programs(program._replace(types=types), maps)
        assert loaded.refusal.startswith(refusal) and bool(loaded.refusal) == bool(refusal)
        kinds = {syscall.program_info(loaded.descriptors[name]).kind for name in probes.EVENTS}
        assert kinds == ({17} if refusal else {syscall.TRACING})
        links = [syscall.attach_raw_tracepoint(loaded.descriptors[name], point) for name, point in source.TRACEPOINTS.values()]
        ring = Ring(maps[pins.RING])
        ((pid, _, status), *_) = output(programs / "storm", "1", "1", programs / "tiny")
        story = [record for record in records_of(ring) if record.tgid == int(pid)]
        assert [type(record) for record in story] == [events.Fork, events.Exec, events.Exit]
        assert isinstance(story[-1], events.Exit) and story[-1].status == int(status)
        ring.close()
        for fd in (*links, *loaded.descriptors.values(), *maps.values()):
            os.close(fd)
