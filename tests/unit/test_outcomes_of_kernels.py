"""What came of a kernel is kept and shown, also when its guest was stopped or did not come to its end."""

from pathlib import Path

import pytest

from tests.kernels import guest, packages, page

KERNEL = packages.KERNELS[0]
WHOLE = guest.Outcome(KERNEL, "linux 1", "Linux version", "raw", 0, (guest.Test("tests.kernel.test_storm::test_x"),), 100.5)
CONSOLE = """guest: booted
collected 5 items

tests/kernels/inside/boot.py::test_first PASSED                          [ 20%]
tests/kernel/test_compare.py::test_records[plain] PASSED [ 40%]
tests/kernel/test_compare.py::test_records[memfd] FAILED [ 60%]
tests/kernel/test_compare.py::test_records[binfmt] SKIPPED (Linux 6.7 brought it) [ 80%]
tests/kernel/test_storm.py::test_full """


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here touches what was kept of real boots."""
    monkeypatch.setenv("TASKTRAIL_CACHE", str(tmp_path))


def test_a_console_tells_which_tests_ended() -> None:
    tests = guest.told(CONSOLE)
    assert [test.name for test in tests] == [
        "tests.kernels.inside.boot::test_first",
        "tests.kernel.test_compare::test_records[plain]",
        "tests.kernel.test_compare::test_records[memfd]",
        "tests.kernel.test_compare::test_records[binfmt]",
    ]
    assert [bool(test.failure) for test in tests] == [False, False, True, False]
    assert [test.skipped for test in tests] == ["", "", "", "Linux 6.7 brought it"]


def test_an_outcome_is_kept_as_it_is() -> None:
    assert guest.kept(KERNEL) is None
    guest.keep(WHOLE)
    assert guest.kept(KERNEL) == WHOLE


def test_a_stopped_one_is_kept_but_not_over_a_whole_one() -> None:
    stopped = WHOLE._replace(problem="was stopped before its end", stopped=True, tests=guest.told(CONSOLE))
    guest.keep(stopped)
    assert guest.kept(KERNEL) == stopped
    guest.keep(WHOLE)
    guest.keep(stopped)
    assert guest.kept(KERNEL) == WHOLE
    slow = stopped._replace(problem="did not end within 900 s", stopped=False)
    guest.keep(slow)
    assert guest.kept(KERNEL) == slow


def test_the_page_says_what_did_not_come_to_its_end() -> None:
    slow = WHOLE._replace(problem="did not end within 900 s", tests=guest.told(CONSOLE), form="", skips=None)
    lines = page.page([WHOLE, slow]).split("\n")
    first, second = (line.split(" | ") for line in lines if line.startswith(f"| {KERNEL.name} |"))
    assert first[1:4] == ["linux 1", "raw", "passed"] and second[1:4] == ["linux 1", "-", "did not end within 900 s"]
    assert len(first) == len(second) == 4 + len(page.COLUMNS) + 2
    assert second[6] == "1/3"
    assert (first[-2], second[-2]) == ("0", "-"), "nobody asked the one that did not end"
    assert f"* {KERNEL.name}: test_records[memfd]: the guest ended before it said how" in lines
    assert f"* {KERNEL.name}: test_records[binfmt]: Linux 6.7 brought it" in lines
