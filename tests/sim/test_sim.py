"""The join against simulated hosts: with nothing missing every field is right; with losses nothing is wrong and all unknowns are marked.

The seed of a failure is printed; ``SIM_FIRST=<seed> SIM_SEEDS=1 pytest tests/sim`` runs it alone, ``SIM_SEEDS=5000`` runs many.
"""

import random
from typing import Any

import pytest

from streams.join import dump
from tests.sim.channel import batches, cut_everywhere, cut_nowhere, cut_randomly, repeat
from tests.sim.oracle import Store, check_exact, differences, store_of
from tests.sim.oracle_loss import check_loss
from tests.sim.scenario import exact_log, flat, joined, lossy_log, seeds, told


@pytest.mark.parametrize("seed", seeds(2))
def test_with_no_loss_every_field_is_right(seed: int) -> None:
    with told(seed):
        log, rng = exact_log(seed)
        rows, _ = joined(flat(batches(log, cut_randomly(log, rng), rng)))
        check_exact(log, store_of(rows))


@pytest.mark.parametrize("seed", seeds(3))
def test_with_losses_nothing_is_wrong_and_unknowns_are_marked(seed: int) -> None:
    with told(seed):
        log, groups, _ = lossy_log(seed)
        rows, _ = joined(flat(groups))
        check_loss(log, store_of(rows))


@pytest.mark.parametrize("seed", seeds())
def test_rows_do_not_depend_on_cuts_repeats_ticks_or_restarts(seed: int) -> None:
    with told(seed):
        log, rng = exact_log(seed)
        whole = store_of(joined(flat(batches(log, cut_nowhere(log), random.Random(1))))[0])
        ways = {
            "each record a batch": joined(flat(batches(log, cut_everywhere(log), random.Random(2)))),
            "other cuts and ticks": joined(flat(batches(log, cut_randomly(log, rng), rng))),
            "repeats and overlaps": joined(repeat(batches(log, cut_randomly(log, rng), rng), rng)),
            "saved after each": joined(flat(batches(log, cut_randomly(log, rng), rng)), random.Random(3)),
            "saved, repeated": joined(repeat(batches(log, cut_randomly(log, rng, 3), rng), rng), random.Random(4), 0.3),
        }
        for way, (rows, _) in ways.items():
            store = store_of(rows)
            different = unequal(store, whole)
            assert not different, f"{way}: {different}"


@pytest.mark.parametrize("seed", seeds())
def test_with_losses_too_rows_do_not_depend_on_repeats_and_restarts(seed: int) -> None:
    with told(seed):
        _, groups, rng = lossy_log(seed)
        rows, state = joined(flat(groups))
        again, restored = joined(repeat(groups, rng), random.Random(seed), 0.5)
        different = unequal(store_of(again), store_of(rows))
        assert not different, different
        same = dump(state) == dump(restored)
        assert same, "the state is another"


@pytest.mark.parametrize("seed", seeds(0.5))
def test_the_same_batches_twice_give_nothing_new(seed: int) -> None:
    with told(seed):
        log, rng = exact_log(seed)
        stream = flat(batches(log, cut_randomly(log, rng), rng))
        once, state = joined(stream)
        twice, after = joined([*stream, *stream])
        different = unequal(store_of(twice), store_of(once))
        assert not different, different
        same = dump(state) == dump(after)
        assert same, "the state is another"


def unequal(left: Store, right: Store) -> str:
    """The first differences of two stores; empty if there are none."""
    out = []
    tables: tuple[tuple[dict[Any, Any], dict[Any, Any]], ...] = ((left.images, right.images), (left.losses, right.losses))
    for one, other in tables:
        for key in {**one, **other}:
            a, b = one.get(key), other.get(key)
            if a != b:
                out.append(f"{key}: {differences(a, b) if a and b else f'{a} instead of {b}'}")
    return "\n".join(out[:4]) + (f"\n({len(out)} rows)" if out else "")
