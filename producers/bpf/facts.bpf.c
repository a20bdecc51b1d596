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

// EVENTS are the programs at the tracepoints, READER those that the reader runs: mark and iterator. SPARE makes second copies of
// the former (producers/spares.py).
#ifndef DIRECT
#define DIRECT 0
#define EVENTS 1
#define READER 1
#define SPARE 0
#endif

// GET reads a member through a pointer to a kernel struct, as READ does. Programs whose arguments have types for the verifier (DIRECT) may
// load it as the kernel's own code would, for a nanosecond instead of twenty; a bad address gives zero in both. The pointer must have come
// from an argument or from another GET, must not have been calculated with, and ``into`` has the size of the member.
#if DIRECT
#define CURRENT() ((addr (*)(void))158)()  // bpf_get_current_task_btf
#define LOAD(into, type, base, offset) asm volatile("%0 = *(" #type " *)(%1 + %2)" : "=r"(into) : "r"(base), "i"(offset))
#define GET(into, base, offset)                       \
    do {                                              \
        u64 loaded_;                                  \
        if (sizeof(into) == 8)                        \
            LOAD(loaded_, u64, base, offset);         \
        else                                          \
            LOAD(loaded_, u32, base, offset);         \
        (into) = loaded_;                             \
    } while (0)
#else
#define CURRENT() bpf_get_current_task()
#define GET(into, base, offset) READ(into, base, offset)
#endif

#define LOOKUP(fd, key) bpf_map_lookup_elem_(bpf_pseudo_fd(1, fd), &(key))
#define NO_WAKEUP 1
#define AVAILABLE_DATA 0
#define SEND(record, size) bpf_ringbuf_output((void *)bpf_pseudo_fd(1, RING_FD), record, size, NO_WAKEUP)

#define GET_COMM(into, task)                                          \
    do {                                                              \
        u64 *halves_ = (u64 *)(into);                                 \
        GET(halves_[0], task, OFFSET(task_struct, comm));             \
        GET(halves_[1], task, OFFSET(task_struct, comm) + 8);         \
    } while (0)
_Static_assert(COMM_BYTES == 16, "GET_COMM takes two halves of 8 bytes");

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

// A spare copy runs after the first one. What it finds not done, the kernel has not let the first one do: it is SAVED. Where the once map
// has NO_ROOM nothing tells whether it was done; sending it again would double every process, so it is counted as one that may be lost.
#if SPARE
INLINE void tell(u32 which) {
    u64 *told = LOOKUP(SPARE_COUNTS_FD, which);
    if (told)
        __sync_fetch_and_add(told, 1);
}
#define SAVED(kind) tell(SAVED_##kind)
#define UNSURE(kind) tell(UNSURE_##kind)
#define NO_ROOM(kind)     \
    do {                  \
        UNSURE(kind);     \
        return 0;         \
    } while (0)
#else
#define SAVED(kind)
#define UNSURE(kind)
#define NO_ROOM(kind) count(COUNT_ONCE_FULL)
#endif

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
    GET(head->tgid, leader, OFFSET(task_struct, tgid));
    GET(head->start_ns, leader, OFFSET(task_struct, start_boottime));
    GET(head->exec_id, leader, OFFSET(task_struct, self_exec_id));
    u32 task_flags = 0;
    GET(task_flags, leader, OFFSET(task_struct, flags));
    if (task_flags & PF_KTHREAD)
        head->flags |= FLAG_KTHREAD;
}

INLINE void read_parent(addr task, u32 *tgid, u64 *start_ns) {
    addr parent, leader;
    GET(parent, task, OFFSET(task_struct, real_parent));
    GET(leader, parent, OFFSET(task_struct, group_leader));
    GET(*tgid, parent, OFFSET(task_struct, tgid));
    GET(*start_ns, leader, OFFSET(task_struct, start_boottime));
}

// Of the process's own pid namespace: its inode number and the pid inside. Most processes are in the first one, where the place is known.
INLINE void read_pid(addr task, u32 *namespace, u32 *number) {
    addr pid, space;
    u32 level = 0;
    GET(pid, task, OFFSET(task_struct, thread_pid));
    GET(level, pid, OFFSET(pid, level));
    if (!level) {
        GET(*number, pid, OFFSET(pid, numbers) + OFFSET(upid, nr));
        GET(space, pid, OFFSET(pid, numbers) + OFFSET(upid, ns));
        GET(*namespace, space, OFFSET(pid_namespace, ns.inum));
        return;
    }
    READ(pid, task, OFFSET(task_struct, thread_pid));
    addr own = pid + OFFSET(pid, numbers) + (u64)(level & 63) * SIZEOF(upid);
    READ(*number, own, OFFSET(upid, nr));
    READ(space, own, OFFSET(upid, ns));
    READ(*namespace, space, OFFSET(pid_namespace, ns.inum));
}

INLINE u32 read_mount_namespace(addr task) {
    addr proxy, space;
    u32 inode = 0;
    GET(proxy, task, OFFSET(task_struct, nsproxy));
    GET(space, proxy, OFFSET(nsproxy, mnt_ns));
    GET(inode, space, OFFSET(mnt_namespace, ns.inum));
    return inode;
}

// The kernfs node of the task's cgroup (v2 hierarchy).
INLINE addr read_cgroup(addr task, u64 *id) {
    addr sets, group, node;
    GET(sets, task, OFFSET(task_struct, cgroups));
    GET(group, sets, OFFSET(css_set, dfl_cgrp));
    GET(node, group, OFFSET(cgroup, kn));
    GET(*id, node, OFFSET(kernfs_node, id));
    return node;
}

// Every task has a cred; a kernel whose types say that it may be missing wants the question asked.
#define GET_CRED(record, cred)                                                        \
    do {                                                                              \
        (record)->uid = (record)->gid = (record)->euid = (record)->egid = -1;         \
        if (cred) {                                                                   \
            GET((record)->uid, cred, OFFSET(cred, uid.val));                          \
            GET((record)->gid, cred, OFFSET(cred, gid.val));                          \
            GET((record)->euid, cred, OFFSET(cred, euid.val));                        \
            GET((record)->egid, cred, OFFSET(cred, egid.val));                        \
        }                                                                             \
    } while (0)

INLINE void read_audit(addr task, u32 *loginuid, u32 *session) {
#if HAVE_AUDIT
    GET(*loginuid, task, OFFSET(task_struct, loginuid.val));
    GET(*session, task, OFFSET(task_struct, sessionid));
#else
    *loginuid = *session = -1;
#endif
}

// What wait(2) tells of the process.
INLINE u32 read_status(addr leader, addr signal) {
    u32 signal_flags = 0, status = 0;
    GET(signal_flags, signal, OFFSET(signal_struct, flags));
    if (signal_flags & SIGNAL_GROUP_EXIT)
        GET(status, signal, OFFSET(signal_struct, group_exit_code));
    else
        GET(status, leader, OFFSET(task_struct, exit_code));
    return status;
}
