/* bomb ATTEMPTS: every process forks on and on, its children too, until all attempts are used up; one that is refused and has no child ends.
   Prints "made pid creator code" for each process that came to be, and "refused N". */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct list {
    atomic_int next, refused;
    struct line {
        int pid, creator, code;
    } lines[];
};

int main(int argc, char **argv) {
    int attempts = atoi(argv[1]), code = 0;
    struct list *list =
        mmap(0, sizeof *list + sizeof(struct line) * attempts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t first = getpid(), me = first;
    for (int at; (at = atomic_fetch_add(&list->next, 1)) < attempts;) {
        pid_t child = fork();
        if (!child) {
            code = at % 251;
            list->lines[at] = (struct line){getpid(), me, code};
            me = getpid();
        } else if (child < 0) {
            if (errno != EAGAIN)
                return 255;
            list->refused++;
            if (waitpid(-1, 0, 0) < 0 && me != first)
                break;
            sched_yield();
        }
    }
    while (waitpid(-1, 0, 0) > 0)
        ;
    if (me != first)
        _exit(code);
    for (int at = 0; at < attempts; at++)
        if (list->lines[at].pid)
            printf("made %d %d %d\n", list->lines[at].pid, list->lines[at].creator, list->lines[at].code);
    printf("refused %d\n", list->refused);
    return 0;
}
