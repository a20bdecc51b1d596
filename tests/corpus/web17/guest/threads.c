/* A thread that is not the leader execs; a leader that ends while its threads live on. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static void *work(void *unused) {
    usleep(50000);
    return unused;
}

static void *replace(void *unused) {
    execl("/usr/bin/true", "true", "by a thread", (char *)0);
    return unused;
}

int main(int argc, char **argv) {
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, 0, work, 0);
    if (argc > 1 && !strcmp(argv[1], "exec"))
        pthread_create(&thread, 0, replace, 0);
    pthread_exit(0);
}
