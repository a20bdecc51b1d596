"""What came of the kernels, in words and as the page docs/kernels.md."""

from collections.abc import Sequence

from tests.kernels.guest import Outcome

_HEAD = """# Kernels

Written by `make test-kernels`.
"""


def sentence(outcome: Outcome) -> str:
    """One line for a terminal."""
    if not outcome.tests:
        return f"{outcome.kernel.name}: {outcome.problem}"
    counts = f"{outcome.passed} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped"
    return f"{outcome.kernel.name}: {outcome.package}: {counts} in {outcome.seconds:.0f} s"


def page(outcomes: Sequence[Outcome]) -> str:
    """The page."""
    return _HEAD + "".join(f"* {sentence(outcome)}\n" for outcome in outcomes)
