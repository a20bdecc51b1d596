"""Names of processes: published examples, and what they depend on."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schemas.identity import NIL, TICK_NS, cpid, task_id

BOOT = UUID("2899dae4-4fa4-4eef-95b6-6bc95325f61a")
HOST = UUID("2f7e4c1a-90b3-4d58-8a6e-1c0d5b7f9e32")
NUMBER = st.integers(0, 2**32 - 1)


def test_the_example_of_the_cpid_specification() -> None:
    assert str(cpid(BOOT, 4026532263, 55558 * TICK_NS, 29)) == "b770a0ed-8463-822c-b5f6-30d9081ddbd9"


def test_a_cpid_depends_on_the_tick_only() -> None:
    assert cpid(BOOT, 4026532263, 55558 * TICK_NS + TICK_NS - 1, 29) == cpid(BOOT, 4026532263, 55558 * TICK_NS, 29)
    assert cpid(BOOT, 4026532263, 55559 * TICK_NS, 29) != cpid(BOOT, 4026532263, 55558 * TICK_NS, 29)


def test_a_task_id_that_was_stored_once_stays() -> None:
    assert str(task_id(HOST, BOOT, 4711, 1_234_567_890_123)) == "92c9e55c-158a-8394-a774-48f3421e39e9"


@given(st.uuids(), st.uuids(), NUMBER, st.integers(0, 2**64 - 1))
def test_task_ids_are_uuids_of_version_8(host_id: UUID, boot_id: UUID, tgid: int, start_ns: int) -> None:
    name = task_id(host_id, boot_id, tgid, start_ns)
    assert (name.version, name.variant) == (8, UUID(int=0x8 << 76 | 0x2 << 62).variant)
    assert name != NIL
    others = [
        task_id(boot_id, host_id, tgid, start_ns),
        task_id(host_id, boot_id, tgid ^ 1, start_ns),
        task_id(host_id, boot_id, tgid, start_ns ^ 1),
    ]
    assert name not in (others if host_id != boot_id else others[1:])
