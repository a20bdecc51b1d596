/* odd WAY: an unusual birth or end of one child; prints the child's pid (its number in this pid namespace) and its wait status. */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
#define IS(name) (!strcmp(argv[1], name))

/* Every system call from here on kills the process. */
static void forbid(void) {
    struct sock_filter filter[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
    struct sock_fprog program = {1, filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    getppid();
}

int main(int argc, char **argv) {
    pid_t child = -1;
    int status = 0;
    if (IS("seccomp")) {
        child = fork();
        if (!child) {
            forbid();
            _exit(9);
        }
    } else if (IS("killed")) {
        child = fork();
        if (!child)
            for (;;)
                pause();
        kill(child, SIGKILL);
    } else if (IS("never-ran")) { /* frozen by a traced stop before its first instruction would take ptrace: killed while it is being made */
        struct clone_args args = {.flags = 0, .exit_signal = SIGCHLD};
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, 0);
        child = syscall(SYS_clone3, &args, sizeof args);
        if (!child)
            for (;;)
                ;
        kill(child, SIGKILL);
    } else if (IS("clone3")) {
        struct clone_args args = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
        child = syscall(SYS_clone3, &args, sizeof args);
        if (!child)
            _exit(23);
    } else if (IS("posix_spawn")) {
        char *arguments[] = {"/bin/sh", "-c", "exit 24", 0};
        if (posix_spawn(&child, arguments[0], 0, 0, arguments, environ))
            return 9;
    } else if (IS("memory")) { /* in a memory group: takes until it is killed */
        child = fork();
        if (!child)
            for (;;)
                memset(malloc(1 << 20), 1, 1 << 20);
    } else if (IS("namespace")) {
        if (unshare(CLONE_NEWPID))
            return 9;
        child = fork();
        if (!child)
            _exit(getpid() == 1 ? 25 : 9);
    }
    if (child < 0)
        return 9;
    waitpid(child, &status, 0);
    printf("%d %d\n", child, status);
    return 0;
}
