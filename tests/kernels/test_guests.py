"""The chosen kernels, each as one test: TASKTRAIL_KERNELS="5.10 6.1" says which, and none is chosen without it."""

import os
from pathlib import Path

import pytest

from tests.kernels import guest, packages, page

_CHOSEN = os.environ.get("TASKTRAIL_KERNELS", "").split()
_KNOWN = {kernel.name: kernel for kernel in packages.KERNELS}


@pytest.mark.parametrize("name", _CHOSEN)
def test_the_recorder_works_in_the_kernel(name: str, tmp_path: Path) -> None:
    outcome = guest.boot(_KNOWN[name], tmp_path / "console")
    print(page.sentence(outcome))
    assert outcome.problem == "", (tmp_path / "console").read_text(errors="replace")[-3000:]
    assert [f"{test.name}: {test.failure}" for test in outcome.failed] == []
    assert outcome.passed > 40
