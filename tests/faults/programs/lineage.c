/* lineage COUNT DEPTH: COUNT times a line of DEPTH processes, each the child of the one before. Every process takes the name "g<line>.<depth>" and
   lives until its child has ended. With COUNT 1 and a large DEPTH it is a deep tree; with many it makes pids come round. All share one memory:
   copies of copies of it would cost the kernel the cube of the depth. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES 32768

struct place {
    int number, depth, last;
};

static void line(struct place place);

static int live(void *argument) {
    struct place place = *(struct place *)argument;
    char name[16];
    snprintf(name, sizeof name, "g%d.%d", place.number, place.depth);
    prctl(PR_SET_NAME, name);
    if (place.depth < place.last)
        line((struct place){place.number, place.depth + 1, place.last});
    _exit(0);
}

static void line(struct place place) {
    char *stack = mmap(0, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pid_t child = stack == MAP_FAILED ? -1 : clone(live, stack + STACK_BYTES, CLONE_VM | SIGCHLD, &place);
    int status = 1;
    if (child < 0)
        perror("clone");
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        _exit(8);
    munmap(stack, STACK_BYTES);
}

int main(int argc, char **argv) {
    for (int number = 0; number < atoi(argv[1]); number++)
        line((struct place){number, 1, atoi(argv[2])});
    return 0;
}
