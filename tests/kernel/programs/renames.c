/* renames COUNT: below $WORK a directory on the way to a program is renamed all the time; COUNT children exec that program. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    static const char *names[] = {"one/deep/aaa", "two/bbbbbbb", "one/deep/ccccccccccccccccccccccccccccccccccccccccccccc", "one/deep/dd"};
    if (chdir(getenv("WORK")) || mkdir("one", 0755) || mkdir("one/deep", 0755) || mkdir("two", 0755) || mkdir("one/deep/aaa", 0755))
        return 9;
    if (system("cp /bin/true one/deep/aaa/program"))
        return 9;
    int program = open("one/deep/aaa/program", O_RDONLY | O_CLOEXEC);
    pid_t renamer = fork();
    if (!renamer)
        for (int i = 0;; i++)
            if (rename(names[i & 3], names[(i + 1) & 3]))
                _exit(1);
    for (int i = atoi(argv[1]); i; i--) {
        pid_t child = vfork();
        if (!child) {
            char *arguments[] = {"program", 0};
            syscall(SYS_execveat, program, "", arguments, environ, AT_EMPTY_PATH);
            _exit(9);
        }
        waitpid(child, 0, 0);
    }
    int status;
    kill(renamer, SIGKILL);
    waitpid(renamer, &status, 0);
    return status != SIGKILL;
}
