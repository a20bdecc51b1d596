/* daemons COUNT [PROGRAM]: so many daemons by double fork. Each creator ends at once; every second daemon becomes PROGRAM, if there is one.
   Prints "pid start creator creator_start" of each when its creator is gone: starts in clock ticks, as /proc says. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long long own_start(void) {
    char text[1024];
    int file = open("/proc/self/stat", O_RDONLY);
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    text[size > 0 ? size : 0] = 0;
    char *word = strrchr(text, ')') + 1;
    for (int field = 3; field < 22; field++)
        word = strchr(word + 1, ' ');
    return strtoull(word, 0, 10);
}

int main(int argc, char **argv) {
    for (int number = 0; number < atoi(argv[1]); number++) {
        pid_t creator = fork();
        if (!creator) {
            pid_t me = getpid();
            unsigned long long start = own_start();
            if (fork())
                _exit(0);
            while (getppid() == me)
                sched_yield();
            setsid();
            char line[128];
            int size = snprintf(line, sizeof line, "%d %llu %d %llu\n", getpid(), own_start(), me, start);
            if (write(1, line, size) != size)
                _exit(9);
            close(1);
            if (argc > 2 && number % 2)
                execl(argv[2], "daemon", (char *)0);
            alarm(120);
            for (;;)
                pause();
        }
        waitpid(creator, 0, 0);
    }
    return 0;
}
