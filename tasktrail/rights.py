"""What a command needs of root's rights, and that it gives up the rest (docs/privileges.md)."""

import os
from collections.abc import Sequence

from producers import prerequisites
from producers.bpf import syscall
from producers.prerequisites import LOADING, READING, Capability
from store import cage
from tasktrail.settings import Settings

CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID = 0, 1, 3, 5, 6, 7
"""Numbers of capabilities(7) that only root has any use for here."""
AS_ROOT = (DAC_OVERRIDE,)
"""Files in the directories of the settings may belong to somebody else."""
WITH_SERVER = (CHOWN, FOWNER, KILL, SETGID, SETUID)
"""The embedded server is made another user's process, with files of its own."""


def needed(settings: Settings, no_load: bool) -> tuple[Capability, ...]:
    """What recording needs with these settings."""
    if no_load:
        return READING
    return LOADING if settings.argv_bytes else tuple(one for one in LOADING if one != Capability.SYS_PTRACE)


def give_up(wanted: Sequence[Capability], server: bool) -> None:
    """Keep what is wanted, and as root what files and an embedded ``server`` need; all else is gone for good.

    To be called while the process has one thread.
    """
    kept = {int(one) for one in prerequisites.standing_for(wanted, prerequisites.held())}
    if os.geteuid() == 0:
        kept.update(AS_ROOT, WITH_SERVER if server else ())
    syscall.lift_memory_limit()  # while we may: what we run later to load the recorder again inherits it
    cage.keep_capabilities(kept)
