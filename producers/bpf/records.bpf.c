// The records, and the memory that they grow in.
//
// producers/bpf/source.py joins this file and the others, in the order records, facts, image, task, seen, into one text.
//
// No kernel header is used. OFFSET, SIZEOF and BITFIELD with a kernel type in brackets are replaced with numbers from the running
// kernel's BTF before the compiler sees this text (producers/bpf/source.py). Capitals that are nowhere defined here are limits from
// schemas/limits.py, numbers from schemas/events.py and descriptors of the maps that the loader made.
// Kernel addresses are plain numbers (addr): bcc then leaves every read to us.

typedef u64 addr;

// -- records: byte for byte schemas/events.py, which the assertions below and tests/kernel/test_layout.py hold them to --

struct head {
    u8 kind, version;
    u16 zero;
    u32 flags, epoch, tgid;
    u64 time_ns, start_ns, exec_id, lost;
};

struct fork_record {
    struct head head;
    u64 creator_start_ns, creator_exec_id, real_parent_start_ns, parent_exec_id, cgroup_id, clone_flags;
    u32 creator_tgid, real_parent_tgid, creator_tid, uid, gid, euid, egid, loginuid, session, pid_ns, ns_pid, mnt_ns;
    char comm[COMM_BYTES];
};

struct exec_record {
    struct head head;
    u64 parent_exec_id, cgroup_id, exe_inode, real_parent_start_ns;
    u32 real_parent_tgid, exe_dev, exe_generation, tid, uid, gid, euid, egid, loginuid, session, tty_nr, pid_ns, ns_pid, mnt_ns, user_ns;
    u32 argc, argv_bytes, zero;
    char comm[COMM_BYTES];
    u16 argv_size, filename_size, interp_size, exe_size, cwd_size, cgroup_size, tty_size, zero_size;
};

struct exit_record {
    struct head head;
    u64 utime_ns, stime_ns, real_parent_start_ns, max_rss_kib, parent_exec_id;
    u32 real_parent_tgid, status, tid, threads;
    char comm[COMM_BYTES];
};

struct rename_record {
    struct head head;
    u32 tid, zero;
    char old_comm[COMM_BYTES], comm[COMM_BYTES];
};

struct mark_record {
    struct head head;
    u32 mark, zero;
    u64 values[8];
};

struct seen_record {
    struct exec_record image;
    u64 creator_start_ns, creator_exec_id;
    u32 creator_tgid, live_threads, status, zero;
};

// -- end of records --

_Static_assert(sizeof(struct fork_record) == FORK_BYTES, "fork_record differs from schemas.events.FORK");
_Static_assert(sizeof(struct exec_record) == EXEC_BYTES, "exec_record differs from schemas.events.EXEC");
_Static_assert(sizeof(struct exit_record) == EXIT_BYTES, "exit_record differs from schemas.events.EXIT");
_Static_assert(sizeof(struct rename_record) == RENAME_BYTES, "rename_record differs from schemas.events.RENAME");
_Static_assert(sizeof(struct mark_record) == MARK_BYTES, "mark_record differs from schemas.events.MARK");
_Static_assert(sizeof(struct seen_record) == SEEN_BYTES, "seen_record differs from schemas.events.SEEN");

// What is kept of every living process, by tgid: it makes each event go out once, however many copies of the programs are attached,
// and it still knows the creator when a snapshot is taken. ``renamed`` is a number made of the name that it took last since its exec.
struct once {
    u64 start_ns, creator_start_ns, creator_exec_id, exec_id;
    u32 creator_tgid, renamed;
};

#define TAIL_MASK 16383
_Static_assert(TAIL_BYTES_MAX + NAME_BYTES_MAX <= TAIL_MASK, "the tail's buffer is too small");

// Per-CPU memory in which a record with a variable part grows; it does not fit on the 512-byte stack.
struct work {
    u64 washed, walked, rounds;
};
struct exec_work {
    struct work work;
    struct exec_record record;
    char tail[TAIL_MASK + 1];
};
struct seen_work {
    struct work work;
    u32 frame[2];
    struct seen_record record;
    char tail[TAIL_MASK + 1];
};
_Static_assert(sizeof(struct exec_work) == EXEC_WORK_BYTES, "EXEC_WORK_BYTES is wrong");
_Static_assert(sizeof(struct seen_work) == SEEN_WORK_BYTES, "SEEN_WORK_BYTES is wrong");
