// Snapshots: an iterator over all tasks; each process becomes one framed SEEN record in the reader's stream --

#if READER
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
#endif
