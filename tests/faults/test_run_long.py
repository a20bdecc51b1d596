"""Millions of events with a bounded set of living processes: nothing grows with what has been."""

import json
import os
import subprocess
import sys

import pytest

from store.server_config import Limits
from tests.e2e.running import ROOT

EVENTS = int(os.environ.get("TASKTRAIL_LONG_EVENTS", "1000000"))


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """What the bench of a long run sees after a tenth of it and at its end. A process of its own, for memory is what is looked at."""
    out = tmp_path_factory.mktemp("long") / "figures"
    command = [sys.executable, "-m", "tests.bench.bench_long", "--events", str(EVENTS), "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60 + EVENTS / 1_000)
    found: dict[str, float] = json.loads(out.read_bytes())
    assert found["events"] >= EVENTS
    return found


def growth(figures: dict[str, float], name: str) -> float:
    """From a tenth of the run to its end: ten times as many events."""
    return figures[f"{name}_end"] / figures[f"{name}_early"]


@pytest.mark.parametrize(("name", "most"), [("run_anon_mib", 1.25), ("state_bytes", 1.25), ("run_files", 1.25), ("server_files", 4.0)])
def test_what_the_stream_holds_depends_on_what_lives(figures: dict[str, float], name: str, most: float) -> None:
    assert growth(figures, name) < most, figures


def test_the_server_keeps_within_its_memory(figures: dict[str, float]) -> None:
    assert figures["server_mib_end"] * (1 << 20) < Limits().memory_bytes


def test_parts_are_merged_and_questions_stay_quick(figures: dict[str, float]) -> None:
    # An insert makes a part; without merges there were hundreds.
    assert figures["parts_end"] < 60, figures
    # Without an index a question would take ten times as long at ten times as many rows.
    assert growth(figures, "history_s") < 6, figures
