/* lineage COUNT DEPTH: COUNT times a line of DEPTH processes, each the child of the one before. Every process takes the name "g<line>.<depth>" and
   lives until its child has ended. With COUNT 1 and a large DEPTH it is a deep tree; with many it makes pids come round. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void line(int number, int depth, int last) {
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        _exit(9);
    }
    if (child) {
        int status;
        waitpid(child, &status, 0);
        if (status)
            _exit(8);
        return;
    }
    char name[16];
    snprintf(name, sizeof name, "g%d.%d", number, depth);
    prctl(PR_SET_NAME, name);
    if (depth < last)
        line(number, depth + 1, last);
    _exit(0);
}

int main(int argc, char **argv) {
    for (int number = 0; number < atoi(argv[1]); number++)
        line(number, 1, atoi(argv[2]));
    return 0;
}
