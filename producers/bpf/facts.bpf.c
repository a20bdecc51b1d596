// Small readers of what the kernel knows about a task, and counters.

// Passes a value through memory, where the verifier forgets its range: else the states that it follows multiply with every path component.
#define WASH(value)                                  \
    do {                                             \
        work->washed = (value);                      \
        asm volatile("" ::: "memory");               \
        (value) = *(volatile u64 *)&work->washed;    \
    } while (0)

// Begins each round of a loop. Linux 6.1 demands that a loop goes back by a jump; the compiler likes to put the loading of variables for the
// next round before its first instruction, so that the last round runs into the next without one. After this it loads them in the round.
#define NEW_ROUND() asm volatile("" ::: "memory")

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
