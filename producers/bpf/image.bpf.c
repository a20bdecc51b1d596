// What can be told of a program image at any time: its paths, cgroup, terminal, ids and namespaces.

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
        NEW_ROUND();
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
