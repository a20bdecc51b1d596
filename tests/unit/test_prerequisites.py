"""Which capabilities stand for which, whatever this process has itself."""

import pytest

from producers.prerequisites import LOADING, READING, Capability, lacking, standing_for

SYS_PTRACE, SYS_ADMIN, PERFMON, BPF = Capability


@pytest.mark.parametrize(
    ("has", "names"),
    [
        ({BPF, PERFMON, SYS_PTRACE}, []),
        ({SYS_ADMIN, SYS_PTRACE}, []),
        ({SYS_ADMIN}, ["CAP_SYS_PTRACE"]),
        ({BPF, SYS_PTRACE}, ["CAP_PERFMON"]),
        (set(), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]),
    ],
)
def test_what_is_lacking(has: set[Capability], names: list[str]) -> None:
    assert lacking(LOADING, frozenset(has)) == names


@pytest.mark.parametrize(
    ("has", "kept"),
    [
        (set(Capability), set(READING)),
        ({BPF, SYS_PTRACE}, set(READING)),
        ({SYS_ADMIN, SYS_PTRACE}, {SYS_ADMIN, SYS_PTRACE}),
    ],
)
def test_what_is_kept(has: set[Capability], kept: set[Capability]) -> None:
    """CAP_SYS_ADMIN goes where it is not the only one that gives what is needed."""
    assert standing_for(READING, frozenset(has)) == kept
