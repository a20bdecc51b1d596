// What can be told of a program image at any time: its paths, cgroup, terminal, ids and namespaces.

// Where the last name of a path may begin: names of cgroup and terminal come after the paths, and always find room.
#define PATHS_END (TAIL_BYTES_MAX - 4 * NAME_BYTES_MAX)

struct place {
    addr mount, entry;
};

// The kernel's struct qstr after d_parent; source.py refuses a kernel where they are not neighbours.
struct entry_start {
    addr parent;
    u32 hash, length;
    addr name;
};

// Both at once where they are copied, for another thread may change them in between.
#if DIRECT
#define GET_PLACE(place, base, offset)                                 \
    do {                                                               \
        GET((place).mount, base, (offset) + OFFSET(path, mnt));        \
        GET((place).entry, base, (offset) + OFFSET(path, dentry));     \
    } while (0)
#else
#define GET_PLACE(place, base, offset) READ(place, base, offset)
#endif
_Static_assert(OFFSET(path, mnt) == 0 && OFFSET(path, dentry) == 8, "struct place is no struct path");

// What the second way up is compared by. d_seq is odd while the kernel renames an entry and moves on with each rename, so a name and a
// parent belong together when it was even before they were read and is the same after: the first way adds it made even, read before them,
// the second as it is. Comparing the names alone would pass a rename that stands still half done (its processor taken away, say) for both
// ways. Pointers are washed first: the verifier lets nobody calculate with typed ones.
#define D_SEQ OFFSET(dentry, d_seq.seqcount.sequence)
#define STABLE(sequence) ((sequence) & ~1u)
#define SUM(parent, hash, sequence)                                                         \
    do {                                                                                    \
        addr plain_ = (parent);                                                             \
        WASH(plain_);                                                                       \
        work->walked = work->walked * 31 + plain_ + ((u64)(sequence) << 32 | (hash));       \
    } while (0)

// Copies one name behind the others.
INLINE u64 copy_component(char *tail, u64 off, addr name) {
    long size = bpf_probe_read_kernel_str(&tail[off], NAME_BYTES_MAX, (void *)name);
    if (size > 0)
        off += size & (2 * NAME_BYTES_MAX - 1);
    return off;
}

// Writes the names from the place up to the top of its mount tree into the tail, leaf first, each ending with NUL, and returns the offset
// after them. The task's own root is ignored. The flags live in map memory: in a register they would multiply the verifier's states. With
// DIRECT the way inside the first mount goes by loads; from its root on, which is mostly the end, addresses are plain numbers.
INLINE u64 walk(struct work *work, char *tail, u64 off, struct place at, u32 *flags, u32 cut, u32 deleted, u32 pseudo, u32 detached) {
    addr mount = at.mount, entry = at.entry, root, hashed, parent, name;
    struct entry_start start;
    u32 hash, sequence;
    GET(root, at.mount, OFFSET(vfsmount, mnt_root));
    GET(sequence, entry, D_SEQ);
    GET(parent, entry, OFFSET(dentry, d_parent));
    GET(hashed, entry, OFFSET(dentry, d_hash.pprev));
    if (!hashed && parent != entry)
        *flags |= deleted;
    SUM(parent, 0, STABLE(sequence));
    *flags |= cut;
    work->rounds = 0;
#if DIRECT
#pragma clang loop unroll(disable)
    for (int i = 0; i < PATH_COMPONENTS_MAX; i++) {
        WASH(off);
        off &= TAIL_MASK;
        if (off > PATHS_END || entry == root)
            break;
        GET(sequence, entry, D_SEQ);
        GET(parent, entry, OFFSET(dentry, d_parent));
        GET(hash, entry, OFFSET(dentry, d_name.hash));
        GET(name, entry, OFFSET(dentry, d_name.name));
        off = copy_component(tail, off, name);
        if (parent == entry) {
            *flags |= pseudo;
            *flags &= ~cut;
            break;
        }
        SUM(parent, hash, STABLE(sequence));
        entry = parent;
        work->rounds++;
    }
    if (entry != root)
        return off & TAIL_MASK;
    WASH(entry);
    root = entry;
#endif
    WASH(mount);
    mount -= OFFSET(mount, mnt);
#pragma clang loop unroll(disable)
    for (int i = 0; i < PATH_COMPONENTS_MAX; i++) {
        WASH(off);
        off &= TAIL_MASK;
        if (off > PATHS_END || work->rounds >= PATH_COMPONENTS_MAX)
            break;
        work->rounds++;
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
        READ(sequence, entry, D_SEQ);
        READ(start, entry, OFFSET(dentry, d_parent));
        off = copy_component(tail, off, start.name);
        if (start.parent == entry) {
            *flags |= pseudo;
            *flags &= ~cut;
            break;
        }
        SUM(start.parent, start.hash, STABLE(sequence));
        entry = start.parent;
    }
    return off & TAIL_MASK;
}

// Goes the same way again, as many rounds as before, without copying: another sum in work->walked means that a directory was renamed
// meanwhile.
INLINE void walk_again(struct work *work, struct place at, u64 rounds) {
    addr mount = at.mount, entry = at.entry, root, parent;
    struct entry_start start;
    u32 hash, sequence;
    work->rounds = rounds;
    GET(root, at.mount, OFFSET(vfsmount, mnt_root));
    GET(parent, entry, OFFSET(dentry, d_parent));
    GET(sequence, entry, D_SEQ);
    SUM(parent, 0, sequence);
#if DIRECT
#pragma clang loop unroll(disable)
    for (int i = 0; i < PATH_COMPONENTS_MAX; i++) {
        NEW_ROUND();
        if (entry == root)
            break;
        GET(parent, entry, OFFSET(dentry, d_parent));
        GET(hash, entry, OFFSET(dentry, d_name.hash));
        GET(sequence, entry, D_SEQ);
        if (parent == entry || !work->rounds--)
            return;
        SUM(parent, hash, sequence);
        entry = parent;
    }
    if (entry != root)
        return;
    WASH(entry);
    root = entry;
#endif
    WASH(mount);
    mount -= OFFSET(mount, mnt);
#pragma clang loop unroll(disable)
    for (int i = 0; i < PATH_COMPONENTS_MAX; i++) {
        NEW_ROUND();
        if (!work->rounds--)
            break;
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
        READ(sequence, entry, D_SEQ);
        if (start.parent == entry)
            break;
        SUM(start.parent, start.hash, sequence);
        entry = start.parent;
    }
}

// Going up from the task's root passes a named directory before the top of the mount tree: it was changed by chroot.
INLINE int is_chrooted(struct work *work, struct place root) {
    addr mount = root.mount, entry = root.entry, top, above;
    GET(top, mount, OFFSET(vfsmount, mnt_root));
    WASH(mount);
    WASH(entry);
    WASH(top);
    mount -= OFFSET(mount, mnt);
#pragma clang loop unroll(disable)
    for (int i = 0; i < 8; i++) {
        NEW_ROUND();
        if (entry != top)
            return 1;
        READ(above, mount, OFFSET(mount, mnt_parent));
        if (above == mount)
            return 0;
        READ(entry, mount, OFFSET(mount, mnt_mountpoint));
        mount = above;
        READ(top, mount, OFFSET(mount, mnt.mnt_root));
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
// Where this reads directly it runs in an exec, which has all of them; the verifier would not understand the same question asked twice.
INLINE u64 fill_paths(struct work *work, struct exec_record *record, char *tail, u64 off, addr mm, addr fs) {
    addr file, inode, super;
    struct place exe, cwd, root;
    u32 *flags = &record->head.flags;
    u64 before = off, exe_rounds = 0, cwd_rounds = 0;
    GET(file, mm, OFFSET(mm_struct, exe_file));
    if (DIRECT && !file) {
        record->exe_size = record->cwd_size = 0;
        record->exe_inode = 0;
        record->exe_dev = record->exe_generation = 0;
        *flags |= FLAG_EXE_CUT | FLAG_CWD_CUT;
        return off;
    }
    GET(inode, file, OFFSET(file, f_inode));
    GET(record->exe_inode, inode, OFFSET(inode, i_ino));
    GET(record->exe_generation, inode, OFFSET(inode, i_generation));
    GET(super, inode, OFFSET(inode, i_sb));
    GET(record->exe_dev, super, OFFSET(super_block, s_dev));
    GET_PLACE(exe, file, OFFSET(file, f_path));
    GET_PLACE(cwd, fs, OFFSET(fs_struct, pwd));
    GET_PLACE(root, fs, OFFSET(fs_struct, root));
    work->walked = 0;
    if (DIRECT || mm)
        off = walk(work, tail, off, exe, flags, FLAG_EXE_CUT, FLAG_EXE_DELETED, FLAG_EXE_PSEUDO, FLAG_EXE_DETACHED);
    exe_rounds = work->rounds;
    record->exe_size = off - before;
    WASH(off);
    before = off;
    if (DIRECT || fs)
        off = walk(work, tail, off, cwd, flags, FLAG_CWD_CUT, FLAG_CWD_DELETED, FLAG_CWD_PSEUDO, FLAG_CWD_DETACHED);
    else
        *flags |= FLAG_CWD_CUT;
    cwd_rounds = work->rounds;
    record->cwd_size = off - before;
    WASH(off);
    u64 walked = work->walked;
    work->walked = 0;
    if (DIRECT || mm)
        walk_again(work, exe, exe_rounds);
    if (DIRECT || fs)
        walk_again(work, cwd, cwd_rounds);
    if (walked != work->walked)
        *flags |= FLAG_PATH_RACED;
    if ((DIRECT || fs) && is_chrooted(work, root))
        *flags |= FLAG_CHROOT;
    return off;
}

INLINE u64 fill_tty(struct work *work, struct exec_record *record, char *tail, u64 off, addr signal) {
    addr tty, driver;
    record->tty_nr = 0;
    GET(tty, signal, OFFSET(signal_struct, tty));
    if (!tty)
        return off;
    u32 major = 0, minor = 0, index = 0;
    GET(driver, tty, OFFSET(tty_struct, driver));
    GET(major, driver, OFFSET(tty_driver, major));
    GET(minor, driver, OFFSET(tty_driver, minor_start));
    GET(index, tty, OFFSET(tty_struct, index));
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
    WASH(tty);
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
    GET(name, node, OFFSET(kernfs_node, name));
    off = copy_name(tail, off, name);
    record->cgroup_size = off - before;
    WASH(off);
    before = off;
    GET(signal, task, OFFSET(task_struct, signal));
    off = fill_tty(work, record, tail, off, signal);
    record->tty_size = off - before;
    WASH(off);
    record->zero_size = 0;
    record->zero = 0;
    record->user_ns = 0;
    GET(cred, task, OFFSET(task_struct, cred));
    GET_CRED(record, cred);
    if (cred) {
        GET(space, cred, OFFSET(cred, user_ns));
        GET(record->user_ns, space, OFFSET(user_namespace, ns.inum));
    }
    read_audit(task, &record->loginuid, &record->session);
    read_pid(task, &record->pid_ns, &record->ns_pid);
    record->mnt_ns = read_mount_namespace(task);
    read_parent(task, &record->real_parent_tgid, &record->real_parent_start_ns);
    GET(record->parent_exec_id, task, OFFSET(task_struct, parent_exec_id));
    GET_COMM(record->comm, task);
    return off;
}
