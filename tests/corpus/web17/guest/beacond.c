/* A daemon as of old: forks twice, leaves its session, is adopted by process 1, and keeps two workers that never exec. */
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void) {
    if (fork())
        _exit(0);
    setsid();
    if (fork())
        _exit(0);
    umask(027);
    if (chdir("/"))
        return 1;
    close(0), close(1), close(2);
    for (int i = 0; i < 2; i++)
        if (!fork()) {
            prctl(PR_SET_NAME, i ? "beacond: send" : "beacond: collect", 0, 0, 0);
            for (;;)
                pause();
        }
    for (;;)
        pause();
}
