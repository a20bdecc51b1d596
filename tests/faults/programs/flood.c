/* flood renames|arguments SECONDS: as nobody, for so long, as fast as it goes: renames of itself, or execs of itself with 4 KiB of arguments.
   A process of its own pid throughout; prints nothing. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    /* As "flood until DEADLINE PADDING" it is one of its own execs. */
    if (geteuid() == 0 && setresuid(65534, 65534, 65534))
        return 9;
    int renames = !strcmp(argv[1], "renames");
    double deadline = strcmp(argv[1], "until") ? now() + atof(argv[2]) : atof(argv[2]);
    for (unsigned long turn = 0; renames && now() < deadline; turn++) {
        char name[16];
        snprintf(name, sizeof name, "flood%lu", turn % 1000000000);
        prctl(PR_SET_NAME, name);
    }
    if (renames || now() >= deadline)
        return 0;
    char text[32], *padding = malloc(4096);
    snprintf(text, sizeof text, "%.6f", deadline);
    memset(padding, 'f', 4095);
    padding[4095] = 0;
    char *arguments[] = {argv[0], "until", text, padding, 0};
    execve("/proc/self/exe", arguments, environ);
    return 8;
}
