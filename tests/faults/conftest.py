"""The faults use what the tests of the whole share."""

from tests.e2e.conftest import kernel_allows_recording, place, programs

__all__ = ["kernel_allows_recording", "place", "programs"]
