/* ends WAY: a child with an unusual birth or end; prints "pid status creator never", never being 1 if the child has not run one instruction. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 200
#define IS(name) (!strcmp(way, name))

static pthread_barrier_t barrier;
static char *way;

static void *thread(void *number) {
    pthread_barrier_wait(&barrier);
    if ((long)number == THREADS / 2) {
        if (IS("group"))
            syscall(SYS_exit_group, 31);
        execl("/bin/sh", "sh", "-c", "exit 32", (char *)0);
    }
    for (;;)
        pause();
    return 0;
}

static void with_threads(void) {
    pthread_attr_t small;
    pthread_t made;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    pthread_barrier_init(&barrier, 0, THREADS + 1);
    for (long number = 0; number < THREADS; number++)
        if (pthread_create(&made, &small, thread, (void *)number))
            _exit(9);
    pthread_barrier_wait(&barrier);
    for (;;)
        pause();
}

int main(int argc, char **argv) {
    way = argv[1];
    int *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status = 0, never = 0;
    pid_t child = -1, creator = getpid();
    if (IS("group") || IS("thread-exec")) {
        child = fork();
        if (!child)
            with_threads();
    } else if (IS("never-ran")) { /* first in, first out on one processor: the child cannot begin before its creator waits, and is killed by then */
        struct sched_param first = {.sched_priority = 1};
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(0, &one);
        if (sched_setaffinity(0, sizeof one, &one) || sched_setscheduler(0, SCHED_FIFO, &first)) {
            perror("sched_setscheduler");
            return 9;
        }
        child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (!child) {
            *shared = 1;
            _exit(9);
        }
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        never = !*shared;
        child = -child;
    } else if (IS("vfork") || IS("vfork-exec")) {
        child = vfork();
        if (!child) {
            if (IS("vfork-exec"))
                execl("/bin/sh", "sh", "-c", "exit 34", (char *)0);
            _exit(33);
        }
    } else if (IS("clone-parent")) {
        pid_t between = fork();
        if (!between) {
            pid_t made = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
            if (!made)
                _exit(35);
            shared[1] = made;
            _exit(0);
        }
        waitpid(between, 0, 0);
        child = shared[1];
        creator = between;
    }
    if (child == -1)
        return 9;
    if (child > 0 && waitpid(child, &status, 0) != child)
        return 9;
    printf("%d %d %d %d\n", child < 0 ? -child : child, status, creator, never);
    return 0;
}
