"""A few thousand of the hostile cases of which `make fuzz` runs a million."""

from random import Random

import pytest

from tests.fuzz.material import material
from tests.fuzz.targets import Fuzzer, survive

CASES = 2_000


@pytest.fixture(scope="module")
def fuzzer() -> Fuzzer:
    """Makes the cases."""
    return Fuzzer(material())


@pytest.mark.parametrize("seed", [11, 12])
def test_hostile_bytes_end_in_values_or_are_refused(fuzzer: Fuzzer, seed: int) -> None:
    for number in range(CASES):
        case = fuzzer.case(Random(seed << 32 | number))
        try:
            survive(case.run)
            fuzzer.neighbour_is_untouched()
        except Exception as wrong:
            raise AssertionError(f"python -m tests.fuzz --seed {seed} --only {number}: {case.name}") from wrong
