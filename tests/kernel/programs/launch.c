/* launch WAY MARK [...]: one of many ways to exec the sleeper ($SLEEPER) with MARK as its argument; files go below $WORK. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char *sleeper, *work, *arguments[8];

static void fail(const char *what) {
    perror(what);
    _exit(9);
}

static char *below(const char *name) {
    char *path;
    if (asprintf(&path, "%s/%s", work, name) < 0)
        fail("asprintf");
    return path;
}

static void run(const char *path) {
    execv(path, arguments);
    fail(path);
}

static void run_fd(int fd) {
    syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    fail("execveat");
}

static void copy(int to) {
    char buffer[65536];
    ssize_t size;
    int from = open(sleeper, O_RDONLY | O_CLOEXEC);
    while ((size = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, size) != size)
            fail("write");
    close(from);
}

/* A copy of the sleeper, open for reading. */
static int copy_to(const char *path) {
    int to = open(path, O_CREAT | O_RDWR | O_TRUNC, 0755);
    if (to < 0)
        fail(path);
    copy(to);
    close(to);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void *run_in_thread(void *leader_gone) {
    if (leader_gone) { /* wait until the leader is a zombie: then its state in /proc is Z */
        char path[64], text[512];
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
        do {
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t size = read(fd, text, sizeof text - 1);
            close(fd);
            text[size > 0 ? size : 0] = 0;
        } while (!strstr(text, ") Z"));
    }
    run(sleeper);
    return 0;
}

static void own_mounts(void) {
    if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_REC | MS_PRIVATE, 0))
        fail("unshare");
}

int main(int argc, char **argv) {
    char *way = argv[1];
    sleeper = getenv("SLEEPER");
    work = getenv("WORK");
    arguments[0] = "sleeper";
    arguments[1] = argv[2];
#define IS(name) (!strcmp(way, name))
    if (IS("memfd")) {
        int fd = memfd_create("my memfd", MFD_CLOEXEC);
        copy(fd);
        run_fd(fd);
    }
    if (IS("deleted")) {
        int fd = copy_to(below("gone_file"));
        unlink(below("gone_file"));
        run_fd(fd);
    }
    if (IS("execveat")) {
        char *slash = strrchr(sleeper, '/');
        *slash = 0;
        int fd = open(sleeper, O_PATH | O_CLOEXEC);
        syscall(SYS_execveat, fd, slash + 1, arguments, environ, 0);
        fail("execveat");
    }
    if (IS("thread") || IS("thread-leader-gone")) {
        pthread_t thread;
        pthread_create(&thread, 0, run_in_thread, IS("thread") ? 0 : way);
        if (IS("thread"))
            for (;;)
                pause();
        syscall(SYS_exit, 0);
    }
    if (IS("cwd-deleted")) {
        char *path = below("gone");
        if (mkdir(path, 0755) || chdir(path) || rmdir(path))
            fail(path);
        run(sleeper);
    }
    if (IS("deep")) { /* deep MARK LEVELS LENGTH */
        char name[256] = {0};
        memset(name, 'd', atoi(argv[4]));
        if (chdir(work))
            fail(work);
        for (int i = atoi(argv[3]); i; i--) {
            mkdir(name, 0755);
            if (chdir(name))
                fail(name);
        }
        run(sleeper);
    }
    if (IS("argv")) { /* argv MARK LENGTH */
        int length = atoi(argv[3]);
        char *big = malloc(length + 1);
        memset(big, 'x', length);
        big[length] = 0;
        arguments[2] = big;
        arguments[3] = "";
        arguments[4] = big;
        run(sleeper);
    }
    if (IS("chroot")) { /* chroot MARK ROOT DIRECTORY PROGRAM */
        if (chroot(argv[3]) || chdir(argv[4]))
            fail("chroot");
        run(argv[5]);
    }
    if (IS("lazy-umount")) {
        char *at = below("lazy");
        own_mounts();
        mkdir(at, 0755);
        if (mount("t", at, "tmpfs", 0, 0))
            fail("mount");
        mkdir(below("lazy/sub"), 0755);
        close(copy_to(below("lazy/sub/sleeper")));
        if (chdir(below("lazy/sub")) || umount2(at, MNT_DETACH))
            fail("umount");
        run("./sleeper");
    }
    if (IS("pivot")) { /* pivot MARK ROOT: as a container runtime does */
        own_mounts();
        if (mount(argv[3], argv[3], 0, MS_BIND, 0) || chdir(argv[3]))
            fail("bind");
        mkdir("old", 0755);
        if (syscall(SYS_pivot_root, ".", "old") || chdir("/") || umount2("/old", MNT_DETACH) || chdir("/bin"))
            fail("pivot_root");
        run("/bin/sleeper");
    }
    if (IS("loginuid")) {
        int fd = open("/proc/self/loginuid", O_WRONLY);
        if (write(fd, "1234", 4) != 4)
            fail("loginuid");
        close(fd);
        run(sleeper);
    }
    if (IS("setuid")) { /* setuid MARK PROGRAM: nobody runs a set-user-id program */
        if (setgid(65534) || setuid(65534))
            fail("setuid");
        run(argv[3]);
    }
    if (IS("ids")) {
        if (setresgid(1001, 1002, 1003) || setresuid(2001, 2002, 2003))
            fail("setresuid");
        run(sleeper);
    }
    if (IS("vfork")) {
        if (!vfork()) {
            execv(sleeper, arguments);
            _exit(9);
        }
        wait(0);
        return 0;
    }
    if (IS("clone-parent")) {
        if (!syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0))
            run(sleeper);
        for (;;)
            pause();
    }
    if (IS("odd-bytes")) {
        char *path = below("we ird\n\xff\xc3name");
        close(copy_to(path));
        run(path);
    }
    if (IS("no-argv0")) {
        arguments[0] = "";
        run(sleeper);
    }
    return 8;
}
