/* urgent COUNT MICROSECONDS PRIORITY PROGRAM: with a real-time priority, which its children have too, it sleeps so long and starts a child
   by vfork and exec of PROGRAM, COUNT times. So it interrupts whatever runs on its CPU. Prints "pid creator status" for every child. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    int count = atoi(argv[1]), *pids = calloc(count, sizeof(int)), *statuses = calloc(count, sizeof(int));
    struct timespec pause = {0, atoi(argv[2]) * 1000L};
    struct sched_param urgency = {atoi(argv[3])};
    char *arguments[2] = {argv[4]};
    if (sched_setscheduler(0, SCHED_FIFO, &urgency))
        return 1;
    for (int i = 0; i < count; i++) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, 0);
        pids[i] = vfork();
        if (!pids[i]) {
            execve(argv[4], arguments, environ);
            _exit(99);
        }
        waitpid(pids[i], &statuses[i], 0);
    }
    for (int i = 0; i < count; i++)
        printf("%d %d %d\n", pids[i], getpid(), statuses[i]);
    return 0;
}
