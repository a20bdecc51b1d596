/* storm COUNT WORKERS PROGRAM: each worker starts its share of children by vfork and exec of PROGRAM with 0 to 6 more arguments and waits
   for each. Prints "pid creator status" for every child after all is done. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct line {
    int pid, creator, status;
};

extern char **environ;

int main(int argc, char **argv) {
    int count = atoi(argv[1]), workers = atoi(argv[2]);
    struct line *lines = mmap(0, sizeof(*lines) * count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int worker = 0; worker < workers; worker++) {
        if (fork())
            continue;
        for (int i = worker; i < count; i += workers) {
            char *arguments[8] = {argv[3]};
            for (int more = 1; more <= i % 7; more++)
                arguments[more] = "x";
            pid_t child = vfork();
            if (!child) {
                execve(argv[3], arguments, environ);
                _exit(99);
            }
            lines[i].pid = child;
            lines[i].creator = getpid();
            waitpid(child, &lines[i].status, 0);
        }
        _exit(0);
    }
    for (int worker = 0; worker < workers; worker++) {
        int status;
        wait(&status);
        if (status)
            return 1;
    }
    for (int i = 0; i < count; i++)
        printf("%d %d %d\n", lines[i].pid, lines[i].creator, lines[i].status);
    return 0;
}
