"""Every limit of Tasktrail that shapes data, named once.

A limit that bites is never silent: each entry says which flag, counter or column shows it.
"""

# -- one record, enforced in the kernel (producers/bpf/task.bpf.c gets these numbers as macros) --
ARGV_BYTES_MAX = 4096
"""Argument bytes kept of one exec; more sets the flag ``argv_cut``. The setting ``argv_bytes`` lowers it."""
FILENAME_BYTES_MAX = 1024
"""Bytes of the path given to execve, NUL included; more sets ``filename_cut``."""
INTERP_BYTES_MAX = 256
"""Bytes of the interpreter's path, NUL included (the kernel's BINPRM_BUF_SIZE)."""
PATH_COMPONENTS_MAX = 256
"""Directory levels walked for exe and cwd; more sets ``exe_cut`` or ``cwd_cut``."""
NAME_BYTES_MAX = 256
"""Bytes of one path component or cgroup name, NUL included (the kernel's NAME_MAX is 255)."""
RECORD_TAIL_BYTES_MAX = 12288
"""Variable bytes of one record: argv, filename, interp, exe, cwd, cgroup and tty together."""
COMM_BYTES = 16
"""The kernel's TASK_COMM_LEN, NUL included."""

# -- the ring --
RING_BYTES_DEFAULT = 32 * 1024 * 1024
"""Size of the kernel ring: about 52,000 processes; what finds no room is counted (``lost``)."""
RING_RECORD_HEADER_BYTES = 8
"""The kernel's struct bpf_ringbuf_hdr before each record."""

# -- one batch --
BATCH_BYTES_MAX = 512 * 1024
"""Body bytes of one batch; a longer stretch of the ring becomes several batches."""
SNAPSHOT_BYTES_MAX = 256 * 1024 * 1024
"""Body bytes of one snapshot batch (half a million living processes)."""

# -- one history --
CHAIN_ELEMENTS_MAX = 64
"""Exec'd images kept in a row's chain, the newest ones; older ones go and ``chain_cut`` is set."""
ANCESTORS_MAX = 64
"""Creator processes kept in a row, the nearest ones; farther ones go and ``ancestors_cut`` is set."""

# -- folding of rows --
FOLD_NS = 200_000_000
"""A forked image that execs sooner is folded into the exec's row; an image that ends sooner is written once."""
REFRESH_NS = 86_400 * 1_000_000_000
"""Rows of living images and of their ancestors are written again after this much event time, so that they never expire."""
RETENTION_DAYS_MAX = 18_000
"""ClickHouse's DateTime ends in 2106 and begins in 1970; with more days than this, sums and differences wrap and rows are lost."""
