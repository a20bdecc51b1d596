"""Flags of a record: what is special about its values. Bits are never given another meaning; schemas.events names them too."""

from enum import IntFlag


class Flag(IntFlag):
    """What is special about a record's values."""

    ARGV_CUT = 1 << 0
    """argv was longer than the limit"""
    ARGV_FAULT = 1 << 1
    """the arguments' memory could not be read"""
    ARGV_SHORT = 1 << 2
    """argv was cut short because the ring was more than half full"""
    FILENAME_CUT = 1 << 3
    """the path given to execve was longer than the limit"""
    EXE_CUT = 1 << 4
    """the executable's path was deeper or longer than the limit: its first levels are missing"""
    EXE_DELETED = 1 << 5
    """the executable's directory entry is gone (/proc/PID/exe ends in " (deleted)")"""
    EXE_PSEUDO = 1 << 6
    """the executable has no place in a file tree (memfd)"""
    EXE_DETACHED = 1 << 7
    """the executable's mount is no longer in a mount tree"""
    CWD_CUT = 1 << 8
    """the working directory's path was deeper or longer than the limit: its first levels are missing"""
    CWD_DELETED = 1 << 9
    """the working directory was removed"""
    CWD_PSEUDO = 1 << 10
    """the working directory has no place in a file tree"""
    CWD_DETACHED = 1 << 11
    """the working directory's mount is no longer in a mount tree"""
    CHROOT = 1 << 12
    """the process's root is not the top of its mount tree"""
    PATH_RACED = 1 << 13
    """a directory on the path was renamed while it was read"""
    THREADS_CUT = 1 << 14
    """CPU time leaves out threads beyond the limit"""
    CPU_TORN = 1 << 15
    """CPU time was read while another thread changed it"""
    KTHREAD = 1 << 16
    """a kernel thread"""
    CREATOR_KNOWN = 1 << 17
    """SEEN only: the creator fields come from the kernel-side map, so they are the real creator"""
    ENDED = 1 << 18
    """SEEN only: every thread had exited (a zombie, or about to be one)"""
    ARGV_FROM_PROC = 1 << 19
    """SEEN only: argv was read from /proc/PID/cmdline, which the process can change"""
    ARGV_MASKED = 1 << 20
    """argv was dropped, cut or masked by a setting before it was written"""
    SUBREAPER = 1 << 21
    """SEEN only: the process is a child subreaper, or the init of its pid namespace"""
