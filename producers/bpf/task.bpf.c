// Tasktrail's kernel programs: every fork, exec, exit and rename becomes one record in the ring.
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
// and it still knows the creator when a snapshot is taken.
struct once {
    u64 start_ns, creator_start_ns, creator_exec_id, exec_id;
    u32 creator_tgid, zero;
};

#define TAIL_MASK 16383
_Static_assert(TAIL_BYTES_MAX + NAME_BYTES_MAX <= TAIL_MASK, "the tail's buffer is too small");

// Per-CPU memory in which a record with a variable part grows; it does not fit on the 512-byte stack.
struct work {
    u64 washed, walked;
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

// Passes a value through memory, where the verifier forgets its range: else the states that it follows multiply with every path component.
#define WASH(value)                                  \
    do {                                             \
        work->washed = (value);                      \
        asm volatile("" ::: "memory");               \
        (value) = *(volatile u64 *)&work->washed;    \
    } while (0)

#define INLINE static inline __attribute__((always_inline))
#define READ(into, base, offset) bpf_probe_read_kernel(&(into), sizeof(into), (void *)((base) + (offset)))
#define LOOKUP(fd, key) bpf_map_lookup_elem_(bpf_pseudo_fd(1, fd), &(key))
#define NO_WAKEUP 1
#define AVAILABLE_DATA 0
#define SEND(record, size) bpf_ringbuf_output((void *)bpf_pseudo_fd(1, RING_FD), record, size, NO_WAKEUP)

#define CLONE_THREAD 0x00010000
#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 0x00000004
#define PTS_MAJOR_FIRST 136
#define PTS_MAJOR_LAST 143
#define IS_ERROR(address) ((address) >= (u64)-4095)

INLINE void count(u32 which) {
    u64 *counter = LOOKUP(COUNTERS_FD, which);
    if (counter)
        __sync_fetch_and_add(counter, 1);
}

// A fork, exec or exit that found no room: the next record of any kind carries the total.
INLINE void count_lost(u32 which) {
    u32 zero = 0;
    count(which);
    u64 *total = LOOKUP(LOST_FD, zero);
    if (total)
        __sync_fetch_and_add(total, 1);
}

INLINE int half_full(void) {
    return bpf_ringbuf_query((void *)bpf_pseudo_fd(1, RING_FD), AVAILABLE_DATA) >= RING_BYTES / 2;
}

INLINE int read_bit(addr base, u32 byte, u32 bit) {
    u8 value = 0;
    READ(value, base, byte);
    return value >> bit & 1;
}

// The head of a record about the process that this group leader stands for.
INLINE void fill_head(struct head *head, u8 kind, addr leader) {
    u32 zero = 0;
    u64 *total = LOOKUP(LOST_FD, zero);
    head->kind = kind;
    head->version = RECORD_VERSION;
    head->zero = 0;
    head->flags = 0;
    head->epoch = EPOCH;
    head->time_ns = bpf_ktime_get_boot_ns();
    head->lost = total ? *(volatile u64 *)total : 0;
    READ(head->tgid, leader, OFFSET(task_struct, tgid));
    READ(head->start_ns, leader, OFFSET(task_struct, start_boottime));
    READ(head->exec_id, leader, OFFSET(task_struct, self_exec_id));
    u32 task_flags = 0;
    READ(task_flags, leader, OFFSET(task_struct, flags));
    if (task_flags & PF_KTHREAD)
        head->flags |= FLAG_KTHREAD;
}

INLINE void read_parent(addr task, u32 *tgid, u64 *start_ns) {
    addr parent, leader;
    READ(parent, task, OFFSET(task_struct, real_parent));
    READ(leader, parent, OFFSET(task_struct, group_leader));
    READ(*tgid, parent, OFFSET(task_struct, tgid));
    READ(*start_ns, leader, OFFSET(task_struct, start_boottime));
}

// Of the process's own pid namespace: its inode number and the pid inside.
INLINE void read_pid(addr task, u32 *namespace, u32 *number) {
    addr pid, space;
    u32 level = 0;
    READ(pid, task, OFFSET(task_struct, thread_pid));
    READ(level, pid, OFFSET(pid, level));
    addr own = pid + OFFSET(pid, numbers) + (u64)(level & 63) * SIZEOF(upid);
    READ(*number, own, OFFSET(upid, nr));
    READ(space, own, OFFSET(upid, ns));
    READ(*namespace, space, OFFSET(pid_namespace, ns.inum));
}

INLINE u32 read_mount_namespace(addr task) {
    addr proxy, space;
    u32 inode = 0;
    READ(proxy, task, OFFSET(task_struct, nsproxy));
    READ(space, proxy, OFFSET(nsproxy, mnt_ns));
    READ(inode, space, OFFSET(mnt_namespace, ns.inum));
    return inode;
}

// The kernfs node of the task's cgroup (v2 hierarchy).
INLINE addr read_cgroup(addr task, u64 *id) {
    addr sets, group, node;
    READ(sets, task, OFFSET(task_struct, cgroups));
    READ(group, sets, OFFSET(css_set, dfl_cgrp));
    READ(node, group, OFFSET(cgroup, kn));
    READ(*id, node, OFFSET(kernfs_node, id));
    return node;
}

#define READ_CRED(record, cred)                                   \
    do {                                                          \
        READ((record)->uid, cred, OFFSET(cred, uid.val));         \
        READ((record)->gid, cred, OFFSET(cred, gid.val));         \
        READ((record)->euid, cred, OFFSET(cred, euid.val));       \
        READ((record)->egid, cred, OFFSET(cred, egid.val));       \
    } while (0)

INLINE void read_audit(addr task, u32 *loginuid, u32 *session) {
#if HAVE_AUDIT
    READ(*loginuid, task, OFFSET(task_struct, loginuid.val));
    READ(*session, task, OFFSET(task_struct, sessionid));
#else
    *loginuid = *session = -1;
#endif
}

// What wait(2) tells of the process.
INLINE u32 read_status(addr leader, addr signal) {
    u32 signal_flags = 0, status = 0;
    READ(signal_flags, signal, OFFSET(signal_struct, flags));
    if (signal_flags & SIGNAL_GROUP_EXIT)
        READ(status, signal, OFFSET(signal_struct, group_exit_code));
    else
        READ(status, leader, OFFSET(task_struct, exit_code));
    return status;
}

// -- fork --

int on_fork(struct bpf_raw_tracepoint_args *ctx) {
    addr child = ctx->args[0];
    u64 clone_flags = ctx->args[1];
    if (clone_flags & CLONE_THREAD)
        return 0;
    addr creator = bpf_get_current_task(), leader, cred;
    struct fork_record record = {};
    fill_head(&record.head, KIND_FORK, child);
    READ(leader, creator, OFFSET(task_struct, group_leader));
    READ(record.creator_tgid, creator, OFFSET(task_struct, tgid));
    READ(record.creator_tid, creator, OFFSET(task_struct, pid));
    READ(record.creator_exec_id, creator, OFFSET(task_struct, self_exec_id));
    READ(record.creator_start_ns, leader, OFFSET(task_struct, start_boottime));

    u32 tgid = record.head.tgid;
    struct once *known = LOOKUP(ONCE_FD, tgid);
    if (known && known->start_ns == record.head.start_ns)
        return 0;
    struct once fresh = {
        .start_ns = record.head.start_ns,
        .creator_start_ns = record.creator_start_ns,
        .creator_exec_id = record.creator_exec_id,
        .exec_id = record.head.exec_id,
        .creator_tgid = record.creator_tgid,
    };
    if (bpf_map_update_elem_(bpf_pseudo_fd(1, ONCE_FD), &tgid, &fresh, 0))
        count(COUNT_ONCE_FULL);

    read_parent(child, &record.real_parent_tgid, &record.real_parent_start_ns);
    READ(record.parent_exec_id, child, OFFSET(task_struct, parent_exec_id));
    record.clone_flags = clone_flags;
    READ(cred, child, OFFSET(task_struct, cred));
    READ_CRED(&record, cred);
    read_audit(child, &record.loginuid, &record.session);
    read_pid(child, &record.pid_ns, &record.ns_pid);
    record.mnt_ns = read_mount_namespace(child);
    read_cgroup(child, &record.cgroup_id);
    READ(record.comm, child, OFFSET(task_struct, comm));
    if (SEND(&record, sizeof(record)))
        count_lost(COUNT_LOST_FORK);
    return 0;
}

// -- paths --

struct place {
    addr mount, entry;
};

// The kernel's struct qstr after d_parent; source.py refuses a kernel where they are not neighbours.
struct entry_start {
    addr parent;
    u32 hash, length;
    addr name;
};

// Writes the names from the place up to the top of its mount tree into the tail, leaf first, each ending with NUL, and returns the offset
// after them. The task's own root is ignored. The flags live in map memory: in a register they would multiply the verifier's states.
INLINE u64 walk(struct work *work, char *tail, u64 off, struct place at, u32 *flags, u32 cut, u32 deleted, u32 pseudo, u32 detached) {
    addr mount = at.mount - OFFSET(mount, mnt), entry = at.entry, root, hashed;
    struct entry_start start;
    READ(root, at.mount, OFFSET(vfsmount, mnt_root));
    READ(start, entry, OFFSET(dentry, d_parent));
    READ(hashed, entry, OFFSET(dentry, d_hash.pprev));
    if (!hashed && start.parent != entry)
        *flags |= deleted;
    *flags |= cut;
#pragma clang loop unroll(disable)
    for (int i = 0; i < PATH_COMPONENTS_MAX; i++) {
        WASH(off);
        off &= TAIL_MASK;
        if (off > TAIL_BYTES_MAX - NAME_BYTES_MAX)
            break;
        if (entry == root) {
            addr above;
            READ(above, mount, OFFSET(mount, mnt_parent));
            if (above == mount) {
                addr space;
                READ(space, mount, OFFSET(mount, mnt_ns));
                if (!space || IS_ERROR(space))
                    *flags |= detached;
                *flags &= ~cut;
                break;
            }
            READ(entry, mount, OFFSET(mount, mnt_mountpoint));
            mount = above;
            READ(root, mount, OFFSET(mount, mnt.mnt_root));
            continue;
        }
        READ(start, entry, OFFSET(dentry, d_parent));
        long size = bpf_probe_read_kernel_str(&tail[off], NAME_BYTES_MAX, (void *)start.name);
        if (size > 0)
            off += size & (2 * NAME_BYTES_MAX - 1);
        if (start.parent == entry) {
            *flags |= pseudo;
            *flags &= ~cut;
            break;
        }
        work->walked = work->walked * 31 + start.parent + start.hash;
        entry = start.parent;
    }
    return off & TAIL_MASK;
}

// Goes the same way again without copying: another sum in work->walked than before means that a directory was renamed meanwhile.
INLINE void walk_again(struct work *work, struct place at) {
    addr mount = at.mount - OFFSET(mount, mnt), entry = at.entry, root;
    struct entry_start start;
    READ(root, at.mount, OFFSET(vfsmount, mnt_root));
#pragma clang loop unroll(disable)
    for (int i = 0; i < PATH_COMPONENTS_MAX; i++) {
        if (entry == root) {
            addr above;
            READ(above, mount, OFFSET(mount, mnt_parent));
            if (above == mount)
                break;
            READ(entry, mount, OFFSET(mount, mnt_mountpoint));
            mount = above;
            READ(root, mount, OFFSET(mount, mnt.mnt_root));
            continue;
        }
        READ(start, entry, OFFSET(dentry, d_parent));
        if (start.parent == entry)
            break;
        work->walked = work->walked * 31 + start.parent + start.hash;
        entry = start.parent;
    }
}

// Going up from the task's root passes a named directory before the top of the mount tree: it was changed by chroot.
INLINE int is_chrooted(struct place root) {
    addr mount = root.mount - OFFSET(mount, mnt), entry = root.entry, top, above;
#pragma clang loop unroll(disable)
    for (int i = 0; i < 8; i++) {
        READ(top, mount, OFFSET(mount, mnt.mnt_root));
        if (entry != top)
            return 1;
        READ(above, mount, OFFSET(mount, mnt_parent));
        if (above == mount)
            return 0;
        READ(entry, mount, OFFSET(mount, mnt_mountpoint));
        mount = above;
    }
    return 1;
}

INLINE u64 copy_name(char *tail, u64 off, addr from) {
    off &= TAIL_MASK;
    if (off > TAIL_BYTES_MAX - NAME_BYTES_MAX)
        off = TAIL_BYTES_MAX - NAME_BYTES_MAX;
    long size = bpf_probe_read_kernel_str(&tail[off], NAME_BYTES_MAX, (void *)from);
    if (size > 0)
        off += size & (2 * NAME_BYTES_MAX - 1);
    return off;
}

// exe and cwd with their flags; a task that has none (a kernel thread, a zombie) gets an empty exe, or an empty cwd with the flag "cut".
INLINE u64 fill_paths(struct work *work, struct exec_record *record, char *tail, u64 off, addr mm, addr fs) {
    addr file, inode, super;
    struct place exe, cwd, root;
    u32 *flags = &record->head.flags;
    u64 before = off;
    READ(file, mm, OFFSET(mm_struct, exe_file));
    READ(inode, file, OFFSET(file, f_inode));
    READ(record->exe_inode, inode, OFFSET(inode, i_ino));
    READ(record->exe_generation, inode, OFFSET(inode, i_generation));
    READ(super, inode, OFFSET(inode, i_sb));
    READ(record->exe_dev, super, OFFSET(super_block, s_dev));
    READ(exe, file, OFFSET(file, f_path));
    READ(cwd, fs, OFFSET(fs_struct, pwd));
    READ(root, fs, OFFSET(fs_struct, root));
    work->walked = 0;
    if (mm)
        off = walk(work, tail, off, exe, flags, FLAG_EXE_CUT, FLAG_EXE_DELETED, FLAG_EXE_PSEUDO, FLAG_EXE_DETACHED);
    record->exe_size = off - before;
    WASH(off);
    before = off;
    if (fs)
        off = walk(work, tail, off, cwd, flags, FLAG_CWD_CUT, FLAG_CWD_DELETED, FLAG_CWD_PSEUDO, FLAG_CWD_DETACHED);
    else
        *flags |= FLAG_CWD_CUT;
    record->cwd_size = off - before;
    WASH(off);
    u64 walked = work->walked;
    work->walked = 0;
    if (mm)
        walk_again(work, exe);
    if (fs)
        walk_again(work, cwd);
    if (walked != work->walked)
        *flags |= FLAG_PATH_RACED;
    if (fs && is_chrooted(root))
        *flags |= FLAG_CHROOT;
    return off;
}

INLINE u64 fill_tty(struct exec_record *record, char *tail, u64 off, addr signal) {
    addr tty, driver;
    record->tty_nr = 0;
    READ(tty, signal, OFFSET(signal_struct, tty));
    if (!tty)
        return off;
    u32 major = 0, minor = 0, index = 0;
    READ(driver, tty, OFFSET(tty_struct, driver));
    READ(major, driver, OFFSET(tty_driver, major));
    READ(minor, driver, OFFSET(tty_driver, minor_start));
    READ(index, tty, OFFSET(tty_struct, index));
    minor += index;
    record->tty_nr = (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
    u64 skipped = 0;
    if (major >= PTS_MAJOR_FIRST && major <= PTS_MAJOR_LAST) {
        // The kernel calls it pts0, but its file is pts/0.
        off &= TAIL_MASK;
        if (off > TAIL_BYTES_MAX - NAME_BYTES_MAX)
            off = TAIL_BYTES_MAX - NAME_BYTES_MAX;
        __builtin_memcpy(&tail[off], "pts/", 4);
        off += 4;
        skipped = 3;
    }
    return copy_name(tail, off, tty + OFFSET(tty_struct, name) + skipped);
}

// Everything about an image but argv, filename and interp, which only an exec can tell. ``task`` is any thread of the process that still
// has its memory and directories.
INLINE u64 fill_image(struct work *work, struct exec_record *record, char *tail, u64 off, addr task, addr mm, addr fs) {
    addr cred, space, signal, node, name;
    off = fill_paths(work, record, tail, off, mm, fs);
    u64 before = off;
    record->cgroup_id = 0;
    node = read_cgroup(task, &record->cgroup_id);
    READ(name, node, OFFSET(kernfs_node, name));
    off = copy_name(tail, off, name);
    record->cgroup_size = off - before;
    WASH(off);
    before = off;
    READ(signal, task, OFFSET(task_struct, signal));
    off = fill_tty(record, tail, off, signal);
    record->tty_size = off - before;
    WASH(off);
    record->zero_size = 0;
    record->zero = 0;
    READ(cred, task, OFFSET(task_struct, cred));
    READ_CRED(record, cred);
    READ(space, cred, OFFSET(cred, user_ns));
    READ(record->user_ns, space, OFFSET(user_namespace, ns.inum));
    read_audit(task, &record->loginuid, &record->session);
    read_pid(task, &record->pid_ns, &record->ns_pid);
    record->mnt_ns = read_mount_namespace(task);
    read_parent(task, &record->real_parent_tgid, &record->real_parent_start_ns);
    READ(record->parent_exec_id, task, OFFSET(task_struct, parent_exec_id));
    READ(record->comm, task, OFFSET(task_struct, comm));
    return off;
}

// -- exec --

INLINE u64 copy_argv(struct work *work, struct exec_record *record, char *tail, addr mm) {
    u64 begin = 0, end = 0, limit = ARGV_BYTES;
    READ(begin, mm, OFFSET(mm_struct, arg_start));
    READ(end, mm, OFFSET(mm_struct, arg_end));
    u64 size = end - begin;
    record->argv_bytes = size;
#if ARGV_BYTES == 0
    record->head.flags |= FLAG_ARGV_MASKED;
    return 0;
#else
    if (half_full()) {
        if (limit > ARGV_SHORT_BYTES && size > ARGV_SHORT_BYTES) {
            record->head.flags |= FLAG_ARGV_SHORT;
            count(COUNT_SHORT_ARGV);
            size = ARGV_SHORT_BYTES;
        }
    }
    if (size > limit) {
        record->head.flags |= FLAG_ARGV_CUT;
        size = limit;
    }
    WASH(size);
    size &= 8191;
    if (size > ARGV_BYTES)
        size = ARGV_BYTES;
    if (bpf_probe_read_user(tail, size, (void *)begin)) {
        record->head.flags |= FLAG_ARGV_FAULT;
        size = 0;
    }
    return size;
#endif
}

INLINE u64 copy_filename(struct work *work, struct exec_record *record, char *tail, u64 off, addr binprm) {
    addr filename, interp;
    u64 before = off;
    READ(filename, binprm, OFFSET(linux_binprm, filename));
    READ(interp, binprm, OFFSET(linux_binprm, interp));
    READ(record->argc, binprm, OFFSET(linux_binprm, argc));
    WASH(off);
    off &= TAIL_MASK;
    if (off > TAIL_BYTES_MAX - FILENAME_BYTES_MAX)
        off = TAIL_BYTES_MAX - FILENAME_BYTES_MAX;
    long size = bpf_probe_read_kernel_str(&tail[off], FILENAME_BYTES_MAX, (void *)filename);
    if (size > 0)
        off += size & (2 * FILENAME_BYTES_MAX - 1);
    if (size == FILENAME_BYTES_MAX)
        record->head.flags |= FLAG_FILENAME_CUT;
    record->filename_size = off - before;
    WASH(off);
    before = off;
    if (interp != filename)
        off = copy_name(tail, off, interp);
    record->interp_size = off - before;
    WASH(off);
    return off & TAIL_MASK;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx) {
    u32 zero = 0;
    struct exec_work *space = LOOKUP(EXEC_WORK_FD, zero);
    if (!space)
        return 0;
    struct work *work = &space->work;
    struct exec_record *record = &space->record;
    addr task = ctx->args[0], mm, fs;
    fill_head(&record->head, KIND_EXEC, task);

    u32 tgid = record->head.tgid;
    struct once *known = LOOKUP(ONCE_FD, tgid);
    if (known && known->start_ns == record->head.start_ns) {
        if (known->exec_id == record->head.exec_id)
            return 0;
        known->exec_id = record->head.exec_id;
    } else {
        struct once fresh = {.start_ns = record->head.start_ns, .exec_id = record->head.exec_id};
        if (bpf_map_update_elem_(bpf_pseudo_fd(1, ONCE_FD), &tgid, &fresh, 0))
            count(COUNT_ONCE_FULL);
    }

    record->tid = ctx->args[1];
    READ(mm, task, OFFSET(task_struct, mm));
    READ(fs, task, OFFSET(task_struct, fs));
    u64 off = copy_argv(work, record, space->tail, mm);
    record->argv_size = off;
    off = copy_filename(work, record, space->tail, off, ctx->args[2]);
    off = fill_image(work, record, space->tail, off, task, mm, fs);
    WASH(off);
    off &= TAIL_MASK;
    if (off > TAIL_BYTES_MAX)
        off = TAIL_BYTES_MAX;
    if (SEND(record, sizeof(*record) + off))
        count_lost(COUNT_LOST_EXEC);
    return 0;
}

// -- exit --

// Splits the exact run time into user and system time in the ratio of the ticks that were counted, as cputime_adjust() in the kernel does.
INLINE void split_run_time(struct exit_record *record, u64 user_ticks_ns, u64 system_ticks_ns, u64 run_ns) {
    u64 ticks_ns = user_ticks_ns + system_ticks_ns;
    if (ticks_ns >> 47) {  // 39 hours: the product below would not fit
        ticks_ns >>= 16;
        system_ticks_ns >>= 16;
    }
    u64 ratio = ticks_ns ? (system_ticks_ns << 16) / ticks_ns : 0;
    record->stime_ns = (run_ns >> 16) * ratio + ((run_ns & 0xffff) * ratio >> 16);
    record->utime_ns = run_ns - record->stime_ns;
}

// CPU time of the threads that are still in the group, the dead leader and the last thread among them, on top of that of the reaped.
INLINE void read_cpu_time(struct exit_record *record, addr signal) {
    addr end = signal + OFFSET(signal_struct, thread_head), at = 0;
    u32 before = 0, after = 0, i;
    u64 user_ns = 0, system_ns = 0, run_ns = 0;
    READ(before, signal, OFFSET(signal_struct, stats_lock));
    READ(user_ns, signal, OFFSET(signal_struct, utime));
    READ(system_ns, signal, OFFSET(signal_struct, stime));
    READ(run_ns, signal, OFFSET(signal_struct, sum_sched_runtime));
    READ(at, end, 0);
#pragma clang loop unroll(disable)
    for (i = 0; i < THREADS_MAX; i++) {
        if (at == end || !at)
            break;
        addr thread = at - OFFSET(task_struct, thread_node);
        u64 spent = 0;
        READ(spent, thread, OFFSET(task_struct, utime));
        user_ns += spent;
        READ(spent, thread, OFFSET(task_struct, stime));
        system_ns += spent;
        READ(spent, thread, OFFSET(task_struct, se.sum_exec_runtime));
        run_ns += spent;
        READ(at, at, 0);
    }
    if (i == THREADS_MAX)
        record->head.flags |= FLAG_THREADS_CUT;
    READ(after, signal, OFFSET(signal_struct, stats_lock));
    if (before != after || (before & 1))
        record->head.flags |= FLAG_CPU_TORN;
    split_run_time(record, user_ns, system_ns, run_ns);
}

// True for the one copy of this program, on one CPU, that is to report this exit. The creator's entry is the token where there is one; a
// process that lived before the recorder has none, and then the slot that its tgid falls into remembers the latest exit.
INLINE int is_first_exit(u32 tgid, u64 start_ns) {
    u32 slot = tgid & (LAST_EXIT_SLOTS - 1);
    u64 *last = LOOKUP(LAST_EXIT_FD, slot);
    if (!last || *(volatile u64 *)last == start_ns)
        return 0;
    struct once *known = LOOKUP(ONCE_FD, tgid);
    *(volatile u64 *)last = start_ns;
    if (known && known->start_ns == start_ns)
        return !bpf_map_delete_elem_(bpf_pseudo_fd(1, ONCE_FD), &tgid);
    return 1;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx) {
    addr task = ctx->args[0], leader, signal;
    READ(signal, task, OFFSET(task_struct, signal));
#if HAVE_GROUP_DEAD
    if (!(ctx->args[1] & 1))
        return 0;
#else
    u32 live = 0;
    READ(live, signal, OFFSET(signal_struct, live.counter));
    if (live)
        return 0;
#endif
    struct exit_record record = {};
    READ(leader, task, OFFSET(task_struct, group_leader));
    fill_head(&record.head, KIND_EXIT, leader);
    if (!is_first_exit(record.head.tgid, record.head.start_ns))
        return 0;
    u64 pages = 0;
    READ(record.tid, task, OFFSET(task_struct, pid));
    READ(record.head.exec_id, task, OFFSET(task_struct, self_exec_id));
    READ(record.parent_exec_id, leader, OFFSET(task_struct, parent_exec_id));
    READ(pages, signal, OFFSET(signal_struct, maxrss));
    READ(record.threads, signal, OFFSET(signal_struct, nr_threads));
    record.max_rss_kib = pages * (PAGE_BYTES / 1024);
    record.status = read_status(leader, signal);
    read_parent(leader, &record.real_parent_tgid, &record.real_parent_start_ns);
    read_cpu_time(&record, signal);
    READ(record.comm, leader, OFFSET(task_struct, comm));
    if (SEND(&record, sizeof(record)))
        count_lost(COUNT_LOST_EXIT);
    return 0;
}

// -- rename --

int on_rename(struct bpf_raw_tracepoint_args *ctx) {
    addr task = ctx->args[0];
    struct rename_record record = {};
    u32 tgid = 0;
    READ(record.tid, task, OFFSET(task_struct, pid));
    READ(tgid, task, OFFSET(task_struct, tgid));
    if (record.tid != tgid || read_bit(task, BITFIELD(task_struct, in_execve)))
        return 0;
    if (half_full()) {
        count(COUNT_DROPPED_RENAME);
        return 0;
    }
    fill_head(&record.head, KIND_RENAME, task);
    READ(record.old_comm, task, OFFSET(task_struct, comm));
    bpf_probe_read_kernel_str(record.comm, sizeof(record.comm), (void *)ctx->args[1]);
    if (SEND(&record, sizeof(record)))
        count(COUNT_DROPPED_RENAME);
    return 0;
}

// -- marks: never attached, run by BPF_PROG_TEST_RUN with the kind of mark and its eight values as arguments --

int mark(struct bpf_raw_tracepoint_args *ctx) {
    addr task = bpf_get_current_task(), leader;
    struct mark_record record = {};
    READ(leader, task, OFFSET(task_struct, group_leader));
    fill_head(&record.head, KIND_MARK, leader);
    record.mark = ctx->args[0];
    record.values[0] = ctx->args[1];
    record.values[1] = ctx->args[2];
    record.values[2] = ctx->args[3];
    record.values[3] = ctx->args[4];
    record.values[4] = ctx->args[5];
    record.values[5] = ctx->args[6];
    record.values[6] = ctx->args[7];
    record.values[7] = ctx->args[8];
    return SEND(&record, sizeof(record)) ? 1 : 0;
}

// -- snapshot: an iterator over all tasks; each process becomes one framed SEEN record in the reader's stream --

// A thread of the group that still has its memory: after the leader ended, others may go on.
INLINE addr living_thread(addr leader, addr signal) {
    addr end = signal + OFFSET(signal_struct, thread_head), at, mm;
    READ(mm, leader, OFFSET(task_struct, mm));
    if (mm)
        return leader;
    READ(at, end, 0);
#pragma clang loop unroll(disable)
    for (int i = 0; i < THREADS_MAX; i++) {
        if (at == end || !at)
            break;
        addr thread = at - OFFSET(task_struct, thread_node);
        READ(mm, thread, OFFSET(task_struct, mm));
        if (mm)
            return thread;
        READ(at, at, 0);
    }
    return leader;
}

INLINE void fill_creator(struct seen_record *record) {
    u32 tgid = record->image.head.tgid;
    struct once *known = LOOKUP(ONCE_FD, tgid);
    record->creator_start_ns = record->creator_exec_id = 0;
    record->creator_tgid = 0;
    if (!known || known->start_ns != record->image.head.start_ns || !known->creator_start_ns)
        return;
    record->creator_start_ns = known->creator_start_ns;
    record->creator_exec_id = known->creator_exec_id;
    record->creator_tgid = known->creator_tgid;
    record->image.head.flags |= FLAG_CREATOR_KNOWN;
}

int bpf_iter__task(void *ctx) {
    addr task = 0, signal, thread, mm, fs, mm_after, fs_after;
    u32 zero = 0, pid = 0, tgid = 0;
    bpf_probe_read_kernel(&task, sizeof(task), ctx + 8);
    if (!task)
        return 0;
    READ(pid, task, OFFSET(task_struct, pid));
    READ(tgid, task, OFFSET(task_struct, tgid));
    if (pid != tgid)
        return 0;
    struct seen_work *space = LOOKUP(SEEN_WORK_FD, zero);
    if (!space)
        return 0;
    struct work *work = &space->work;
    struct exec_record *image = &space->record.image;
    fill_head(&image->head, KIND_SEEN, task);
    READ(signal, task, OFFSET(task_struct, signal));
    thread = living_thread(task, signal);
    READ(mm, thread, OFFSET(task_struct, mm));
    READ(fs, thread, OFFSET(task_struct, fs));
    if (image->head.flags & FLAG_KTHREAD)
        mm = 0;  // it may have borrowed one
    u64 begin = 0, end = 0;
    READ(begin, mm, OFFSET(mm_struct, arg_start));
    READ(end, mm, OFFSET(mm_struct, arg_end));
    image->argv_bytes = end - begin;
    image->argc = 0;
    image->tid = pid;
    image->argv_size = image->filename_size = image->interp_size = 0;
    image->exe_inode = 0;
    image->exe_dev = image->exe_generation = 0;
    int busy = read_bit(thread, BITFIELD(task_struct, in_execve));
    u64 off = fill_image(work, image, space->tail, 0, thread, mm, fs);
    READ(image->comm, task, OFFSET(task_struct, comm));
    read_parent(task, &image->real_parent_tgid, &image->real_parent_start_ns);
    READ(space->record.live_threads, signal, OFFSET(signal_struct, live.counter));
    space->record.status = 0;
    space->record.zero = begin;  // tells the reader of /proc whether it is still the same memory; it does not pass it on
    if (!space->record.live_threads) {
        image->head.flags |= FLAG_ENDED;
        space->record.status = read_status(task, signal);
    }
    if (read_bit(signal, BITFIELD(signal_struct, is_child_subreaper)) || image->ns_pid == 1)
        image->head.flags |= FLAG_SUBREAPER;
    fill_creator(&space->record);

    // The other task went on meanwhile. If it was or is inside execve, or gave its memory or directories up, what was read may be of two
    // images or of freed memory: then that stays unknown.
    READ(mm_after, thread, OFFSET(task_struct, mm));
    READ(fs_after, thread, OFFSET(task_struct, fs));
    if (busy || fs != fs_after || (mm && mm != mm_after) || read_bit(thread, BITFIELD(task_struct, in_execve))) {
        image->exe_size = image->cwd_size = image->cgroup_size = image->tty_size = 0;
        image->exe_inode = 0;
        image->exe_dev = image->exe_generation = 0;
        image->head.flags &= FLAG_KTHREAD | FLAG_ENDED | FLAG_SUBREAPER | FLAG_CREATOR_KNOWN;
        image->head.flags |= FLAG_EXE_CUT | FLAG_CWD_CUT;
        __builtin_memset(image->comm, 0, sizeof(image->comm));
        off = 0;
    }
    WASH(off);
    off &= TAIL_MASK;
    if (off > TAIL_BYTES_MAX)
        off = TAIL_BYTES_MAX;
    *(u64 *)&space->tail[off] = 0;
    space->frame[0] = sizeof(struct seen_record) + off;
    space->frame[1] = 0;
    off = (sizeof(space->frame) + sizeof(struct seen_record) + off + 7) & ~7ULL;
    addr meta, seq;
    asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(meta) : "r"(ctx));
    asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(seq) : "r"(meta));
    bpf_seq_write((void *)seq, &space->frame, off);
    return 0;
}
