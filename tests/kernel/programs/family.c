/* family WAY [...]: ways to create processes. Each line printed is "what pid creator": the creator is who called fork or clone. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char stack[65536];
static int gate[2];

static void say(const char *what, int pid, int creator) {
    char line[64];
    int size = snprintf(line, sizeof line, "%s %d %d\n", what, pid, creator);
    if (write(1, line, size) != size)
        _exit(9);
}

static int leave(void *code) {
    _exit((long)code);
}

/* Returns when every other holder of the gate's writing end has ended. */
static void wait_for_others(void) {
    char byte;
    close(gate[1]);
    while (read(gate[0], &byte, 1) > 0)
        ;
}

static void *fork_here(void *unused) {
    pid_t child = fork();
    if (!child)
        _exit(22);
    say("child", child, getpid());
    waitpid(child, 0, 0);
    exit(0);
}

static void *fork_on_and_on(void *unused) {
    for (;;) {
        pid_t child = vfork();
        if (!child)
            _exit(0);
        if (child > 0)
            waitpid(child, 0, 0);
    }
}

static void *rename_thread(void *unused) {
    prctl(PR_SET_NAME, "threadname");
    return 0;
}

/* A child creates a grandchild and ends; the grandchild ends when its creator is gone for sure. */
static void orphan(int code) {
    pid_t child = fork();
    if (!child) {
        pid_t me = getpid();
        pid_t grandchild = fork();
        if (!grandchild) {
            while (getppid() == me)
                sched_yield();
            say("reaper", getpid(), getppid());
            _exit(code);
        }
        say("orphan", grandchild, me);
        _exit(0);
    }
    say("child", child, getpid());
    waitpid(child, 0, 0);
}

int main(int argc, char **argv) {
    char *way = argv[1];
    pthread_t thread;
#define IS(name) (!strcmp(way, name))
    if (pipe(gate))
        return 9;
    if (IS("fork")) {
        pid_t child = fork();
        if (!child)
            _exit(20);
        say("child", child, getpid());
        waitpid(child, 0, 0);
    } else if (IS("vfork")) {
        pid_t child = vfork();
        if (!child)
            _exit(23);
        say("child", child, getpid());
        waitpid(child, 0, 0);
    } else if (IS("clone-vm")) {
        pid_t child = clone(leave, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)21);
        say("child", child, getpid());
        waitpid(child, 0, 0);
    } else if (IS("clone-parent")) { /* after another exec, so that parent_exec_id is not the creator's */
        if (argc < 3)
            execl("/proc/self/exe", "family", way, "again", (char *)0);
        pid_t child = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (!child)
            _exit(20);
        say("child", child, getpid());
    } else if (IS("thread")) {
        pthread_create(&thread, 0, fork_here, 0);
        syscall(SYS_exit, 0);
    } else if (IS("subreaper")) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        orphan(24);
        wait(0);
    } else if (IS("daemon")) {
        orphan(25);
        wait_for_others();
    } else if (IS("exec-race")) { /* threads fork in a loop while the leader execs itself again and again */
        int left = atoi(argv[2]);
        if (!left)
            return 0;
        for (int i = 0; i < 3; i++)
            pthread_create(&thread, 0, fork_on_and_on, 0);
        pid_t child = fork();
        if (!child)
            _exit(26);
        say("child", child, getpid());
        waitpid(child, 0, 0);
        char number[16];
        snprintf(number, sizeof number, "%d", left - 1);
        execl("/proc/self/exe", "family", way, number, (char *)0);
    } else if (IS("names")) {
        say("names", getpid(), getppid());
        prctl(PR_SET_NAME, "first");
        pthread_create(&thread, 0, rename_thread, 0);
        pthread_join(thread, 0);
        pid_t child = fork();
        if (!child) {
            char path[64];
            snprintf(path, sizeof path, "/proc/%d/task/%d/comm", getppid(), getppid());
            _exit(open(path, O_WRONLY) < 0);
        }
        waitpid(child, 0, 0);
        int fd = open("/proc/self/comm", O_WRONLY);
        if (write(fd, "second", 6) != 6)
            return 9;
        prctl(PR_SET_NAME, "third, and too long for a comm");
        execl("/bin/true", "true", (char *)0);
    } else {
        return 8;
    }
    return 0;
}
