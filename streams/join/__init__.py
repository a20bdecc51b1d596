"""The join: task events of one host into rows of images, each with the chain of programs that led to it.

Pure: no clock, no I/O; the same log gives the same rows, wherever it is cut into batches and whatever is read twice.

    state = HostState()
    rows = apply(state, batch)
    state = load(dump(state))
"""

from streams.join.log import apply
from streams.join.losses import claimed, rows_lost
from streams.join.model import HostState
from streams.join.saved import dump, load

__all__ = ["HostState", "apply", "claimed", "dump", "load", "rows_lost"]
