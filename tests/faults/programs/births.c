/* births PERIOD_US: makes a child every so often until its stdin is closed; each lives until then. Prints "pid start" of each: its start in
   clock ticks, as /proc says. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static unsigned long long start_of(pid_t pid) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    char *word = strrchr(text, ')') + 1;
    for (int field = 3; field < 22; field++)
        word = strchr(word + 1, ' ');
    return strtoull(word, 0, 10);
}

int main(int argc, char **argv) {
    struct pollfd end = {0, POLLIN};
    pid_t me = getpid();
    do {
        pid_t child = fork();
        if (!child) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (getppid() == me)
                pause();
            _exit(0);
        }
        printf("%d %llu\n", child, start_of(child));
        fflush(stdout);
    } while (!poll(&end, 1, atoi(argv[1]) / 1000));
    return 0;
}
