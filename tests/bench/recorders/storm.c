/* storm fork|exec COUNT WORKERS FILE [PROGRAM]: each worker makes its share of children one after another and waits for each. A child ends
   at once, or becomes PROGRAM. FILE holds, while it runs and whatever becomes of the storm, the time of begin and end (CLOCK_MONOTONIC,
   nanoseconds) and one line for each child: the list that recorders are held to. Prints a line when it begins. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct line {
    int pid, creator, ended, status;
};

struct list {
    long began_ns, ended_ns;
    struct line lines[];
};

extern char **environ;

static long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void work(struct list *list, int first, int step, int count, char *program) {
    char *arguments[] = {program, NULL};
    for (int i = first; i < count; i += step) {
        struct line *line = &list->lines[i];
        pid_t child = fork();
        if (!child) {
            if (program)
                execve(program, arguments, environ);
            _exit(program ? 99 : 1);
        }
        if (child < 0)
            _exit(1);
        line->creator = getpid();
        line->pid = child;
        waitpid(child, &line->status, 0);
        line->ended = 1;
    }
    _exit(0);
}

int main(int argc, char **argv) {
    int count = atoi(argv[2]), workers = atoi(argv[3]), failed = 0;
    size_t size = sizeof(struct list) + sizeof(struct line) * count;
    int file = open(argv[4], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || ftruncate(file, size))
        return 2;
    struct list *list = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    if (list == MAP_FAILED)
        return 2;
    memset(list, 0, size);
    puts("begins");
    fflush(stdout);
    list->began_ns = now_ns();
    for (int worker = 0; worker < workers; worker++)
        if (!fork())
            work(list, worker, workers, count, strcmp(argv[1], "exec") ? NULL : argv[5]);
    for (int worker = 0; worker < workers; worker++) {
        int status;
        wait(&status);
        failed |= status;
    }
    list->ended_ns = now_ns();
    return failed ? 1 : 0;
}
