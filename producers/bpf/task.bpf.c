// Tasktrail's kernel programs: every fork, exec, exit and rename becomes one record in the ring.

#if EVENTS
// -- fork --

int on_fork(struct bpf_raw_tracepoint_args *ctx) {
    addr child = ctx->args[0];
    u64 clone_flags = ctx->args[1];
    if (clone_flags & CLONE_THREAD)
        return 0;
    addr creator = CURRENT(), leader, cred;
    struct fork_record record = {};
    fill_head(&record.head, KIND_FORK, child);
    GET(leader, creator, OFFSET(task_struct, group_leader));
    GET(record.creator_tgid, creator, OFFSET(task_struct, tgid));
    GET(record.creator_tid, creator, OFFSET(task_struct, pid));
    GET(record.creator_exec_id, creator, OFFSET(task_struct, self_exec_id));
    GET(record.creator_start_ns, leader, OFFSET(task_struct, start_boottime));

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
        NO_ROOM(FORK);
    SAVED(FORK);

    read_parent(child, &record.real_parent_tgid, &record.real_parent_start_ns);
    GET(record.parent_exec_id, child, OFFSET(task_struct, parent_exec_id));
    record.clone_flags = clone_flags;
    GET(cred, child, OFFSET(task_struct, cred));
    GET_CRED(&record, cred);
    read_audit(child, &record.loginuid, &record.session);
    read_pid(child, &record.pid_ns, &record.ns_pid);
    record.mnt_ns = read_mount_namespace(child);
    read_cgroup(child, &record.cgroup_id);
    GET_COMM(record.comm, child);
    if (SEND(&record, sizeof(record)))
        count_lost(COUNT_LOST_FORK);
    return 0;
}

// -- exec --

INLINE u64 copy_argv(struct work *work, struct exec_record *record, char *tail, addr mm) {
    u64 begin = 0, end = 0, limit = ARGV_BYTES;
    GET(begin, mm, OFFSET(mm_struct, arg_start));
    GET(end, mm, OFFSET(mm_struct, arg_end));
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
    GET(filename, binprm, OFFSET(linux_binprm, filename));
    GET(interp, binprm, OFFSET(linux_binprm, interp));
    GET(record->argc, binprm, OFFSET(linux_binprm, argc));
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
        known->renamed = 0;
    } else {
        struct once fresh = {.start_ns = record->head.start_ns, .exec_id = record->head.exec_id};
        if (bpf_map_update_elem_(bpf_pseudo_fd(1, ONCE_FD), &tgid, &fresh, 0))
            NO_ROOM(EXEC);
    }
    SAVED(EXEC);

    record->tid = ctx->args[1];
    GET(mm, task, OFFSET(task_struct, mm));
    GET(fs, task, OFFSET(task_struct, fs));
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
// A process mostly ends with one thread: then ``task`` is the whole list.
INLINE void read_cpu_time(struct exit_record *record, addr task, addr signal) {
    addr end = signal + OFFSET(signal_struct, thread_head), at = 0;
    u32 before = 0, after = 0, i = 0;
    u64 user_ns = 0, system_ns = 0, run_ns = 0, spent = 0;
    GET(before, signal, OFFSET(signal_struct, stats_lock));
    GET(record->threads, signal, OFFSET(signal_struct, nr_threads));
    GET(user_ns, signal, OFFSET(signal_struct, utime));
    GET(system_ns, signal, OFFSET(signal_struct, stime));
    GET(run_ns, signal, OFFSET(signal_struct, sum_sched_runtime));
    if (record->threads == 1) {
        GET(spent, task, OFFSET(task_struct, utime));
        user_ns += spent;
        GET(spent, task, OFFSET(task_struct, stime));
        system_ns += spent;
        GET(spent, task, OFFSET(task_struct, se.sum_exec_runtime));
        run_ns += spent;
    } else {
        READ(at, end, 0);
#pragma clang loop unroll(disable)
        for (i = 0; i < THREADS_MAX; i++) {
            if (at == end || !at)
                break;
            addr thread = at - OFFSET(task_struct, thread_node);
            READ(spent, thread, OFFSET(task_struct, utime));
            user_ns += spent;
            READ(spent, thread, OFFSET(task_struct, stime));
            system_ns += spent;
            READ(spent, thread, OFFSET(task_struct, se.sum_exec_runtime));
            run_ns += spent;
            READ(at, at, 0);
        }
    }
    if (i == THREADS_MAX)
        record->head.flags |= FLAG_THREADS_CUT;
    GET(after, signal, OFFSET(signal_struct, stats_lock));
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
    if (known && known->start_ns == start_ns) {
        if (bpf_map_delete_elem_(bpf_pseudo_fd(1, ONCE_FD), &tgid))
            return 0;
        SAVED(EXIT);
        return 1;
    }
    UNSURE(EXIT);  // it may be done, if another exit took the slot since; the join takes no harm from a second record
    return 1;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx) {
    addr task = ctx->args[0], leader, signal;
    GET(signal, task, OFFSET(task_struct, signal));
#if HAVE_GROUP_DEAD
    if (!(ctx->args[1] & 1))
        return 0;
#else
    u32 live = 0;
    GET(live, signal, OFFSET(signal_struct, live.counter));
    if (live)
        return 0;
#endif
    struct exit_record record = {};
    GET(leader, task, OFFSET(task_struct, group_leader));
    fill_head(&record.head, KIND_EXIT, leader);
    if (!is_first_exit(record.head.tgid, record.head.start_ns))
        return 0;
    u64 pages = 0;
    GET(record.tid, task, OFFSET(task_struct, pid));
    GET(record.head.exec_id, task, OFFSET(task_struct, self_exec_id));
    GET(record.parent_exec_id, leader, OFFSET(task_struct, parent_exec_id));
    GET(pages, signal, OFFSET(signal_struct, maxrss));
    record.max_rss_kib = pages * (PAGE_BYTES / 1024);
    record.status = read_status(leader, signal);
    read_parent(leader, &record.real_parent_tgid, &record.real_parent_start_ns);
    read_cpu_time(&record, task, signal);
    GET_COMM(record.comm, leader);
    if (SEND(&record, sizeof(record)))
        count_lost(COUNT_LOST_EXIT);
    return 0;
}

// -- rename --

// Stands for a name; never 0.
INLINE u32 number_of(const char *comm) {
    const u64 *halves = (const u64 *)comm;
    return (halves[0] * 0x9e3779b97f4a7c15 ^ halves[1] * 0xc2b2ae3d27d4eb4f) >> 32 | 1;
}

int on_rename(struct bpf_raw_tracepoint_args *ctx) {
    addr task = ctx->args[0];
    struct rename_record record = {};
    u32 tgid = 0;
    GET(record.tid, task, OFFSET(task_struct, pid));
    GET(tgid, task, OFFSET(task_struct, tgid));
    if (record.tid != tgid || read_bit(task, BITFIELD(task_struct, in_execve)))
        return 0;
    fill_head(&record.head, KIND_RENAME, task);
    GET_COMM(record.old_comm, task);
    bpf_probe_read_kernel_str(record.comm, sizeof(record.comm), (void *)ctx->args[1]);
    struct once *known = LOOKUP(ONCE_FD, tgid);
    u32 name = number_of(record.comm);
    if (known && known->start_ns == record.head.start_ns) {
        if (SPARE && known->renamed == name)
            return 0;
        known->renamed = name;
        SAVED(RENAME);
    } else if (SPARE) {
        UNSURE(RENAME);
        return 0;
    }
    if (half_full()) {
        count(COUNT_DROPPED_RENAME);
        return 0;
    }
    if (SEND(&record, sizeof(record)))
        count(COUNT_DROPPED_RENAME);
    return 0;
}

#endif

#if READER
// -- marks: never attached, run by BPF_PROG_TEST_RUN with the kind of mark and its eight values as arguments --

int mark(struct bpf_raw_tracepoint_args *ctx) {
    addr task = bpf_get_current_task(), leader;
    struct mark_record record = {};
    GET(leader, task, OFFSET(task_struct, group_leader));
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
#endif
