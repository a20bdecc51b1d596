/* ending WAY TIMES [NUMBER]: children that end in one way. Prints "pid status utime_us stime_us maxrss_kib" of each, as wait4(2) told. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_barrier_t barrier;

static double seconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void spin(double how_long) {
    double end = seconds(CLOCK_THREAD_CPUTIME_ID) + how_long;
    while (seconds(CLOCK_THREAD_CPUTIME_ID) < end)
        ;
}

static char *touch(size_t mib) {
    char *memory = mmap(0, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < mib << 20; i += 4096)
        memory[i] = 1;
    return memory;
}

static void exit_thread(long code) {
    syscall(SYS_exit, code);
}

/* Returns when the leader's other threads see it as a zombie. */
static void await_leader(void) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    do {
        int fd = open(path, O_RDONLY);
        ssize_t size = read(fd, text, sizeof text - 1);
        close(fd);
        text[size > 0 ? size : 0] = 0;
    } while (!strstr(text, ") Z"));
}

static void *exits_at_once(void *code) {
    pthread_barrier_wait(&barrier);
    exit_thread((long)code);
    return 0;
}
static void *exits_group(void *unused) {
    syscall(SYS_exit_group, 9);
    return 0;
}
static void *exits_after_leader(void *unused) {
    await_leader();
    exit_thread(7);
    return 0;
}
static void *forks_after_leader(void *unused) {
    await_leader();
    pid_t child = fork();
    if (!child)
        _exit(11);
    waitpid(child, 0, 0);
    return 0;
}
static void *spins(void *how_long) {
    spin(*(double *)how_long);
    return 0;
}
static void *spins_for_long(void *unused) {
    spin(30);
    return 0;
}
static void *spins_then_exits(void *unused) {
    spin(0.05);
    exit_thread(7);
    return 0;
}
static void *waits(void *unused) {
    for (;;)
        pause();
    return 0;
}

static void end(const char *way, int number) {
    pthread_t threads[256];
    struct rlimit no_core = {0, 0};
#define IS(name) (!strcmp(way, name))
    if (IS("exit"))
        _exit(number);
    if (IS("together")) {
        pthread_barrier_init(&barrier, 0, number + 1);
        for (long i = 0; i < number; i++)
            pthread_create(&threads[i], 0, exits_at_once, (void *)(i + 1));
        pthread_barrier_wait(&barrier);
        exit_thread(100);
    }
    if (IS("group")) {
        pthread_create(threads, 0, exits_group, 0);
        waits(0);
    }
    if (IS("leader-first")) {
        pthread_create(threads, 0, exits_after_leader, 0);
        exit_thread(5);
    }
    if (IS("kill")) {
        pthread_create(threads, 0, waits, 0);
        raise(SIGKILL);
    }
    if (IS("segv")) {
        setrlimit(RLIMIT_CORE, &no_core);
        *(volatile int *)0 = 1;
    }
    if (IS("abort")) {
        setrlimit(RLIMIT_CORE, &no_core);
        abort();
    }
    if (IS("term"))
        raise(SIGTERM);
    if (IS("spin")) {
        spin(0.2);
        _exit(0);
    }
    if (IS("system-time")) {
        for (double stop = seconds(CLOCK_MONOTONIC) + 0.2; seconds(CLOCK_MONOTONIC) < stop;) {
            char text[4096];
            int fd = open("/proc/self/status", O_RDONLY);
            if (read(fd, text, sizeof text) < 0)
                _exit(9);
            close(fd);
        }
        _exit(0);
    }
    if (IS("threads-joined")) {
        double each = 0.1;
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], 0, spins, &each);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], 0);
        spin(0.05);
        _exit(0);
    }
    if (IS("threads-living")) {
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], 0, spins_for_long, 0);
        spin(0.15);
        _exit(0);
    }
    if (IS("hundred-threads")) {
        for (int i = 0; i < 100; i++)
            pthread_create(&threads[i], 0, waits, 0);
        spin(0.1);
        _exit(0);
    }
    if (IS("spin-leader-first")) {
        pthread_create(threads, 0, spins_then_exits, 0);
        spin(0.02);
        exit_thread(5);
    }
    if (IS("memory")) {
        touch(number);
        _exit(0);
    }
    if (IS("memory-given-back")) {
        munmap(touch(number), (size_t)number << 20);
        _exit(0);
    }
    if (IS("memory-then-exec")) {
        touch(number);
        execl("/bin/true", "true", (char *)0);
    }
    if (IS("exec"))
        execl("/bin/true", "true", (char *)0);
    if (IS("thread-fork")) {
        pthread_create(threads, 0, forks_after_leader, 0);
        exit_thread(5);
    }
    if (IS("exec-missing")) {
        execl("/nonexistent", "x", (char *)0);
        _exit(78);
    }
    if (IS("exec-broken")) { /* an ELF file whose interpreter is gone after the point of no return */
        execl(getenv("BROKEN"), "broken", (char *)0);
        _exit(77);
    }
    _exit(99);
}

int main(int argc, char **argv) {
    int times = atoi(argv[2]), number = argc > 3 ? atoi(argv[3]) : 0;
    for (int i = 0; i < times; i++) {
        pid_t child = fork();
        if (!child)
            end(argv[1], number);
        int status;
        struct rusage usage;
        wait4(child, &status, 0, &usage);
        printf("%d %d %ld %ld %ld\n", child, status, usage.ru_utime.tv_sec * 1000000L + usage.ru_utime.tv_usec,
               usage.ru_stime.tv_sec * 1000000L + usage.ru_stime.tv_usec, usage.ru_maxrss);
        fflush(stdout);
    }
    return 0;
}
