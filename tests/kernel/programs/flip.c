/* flip LEFT OTHER: execs OTHER with itself as the other one, until LEFT is 0. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int left = atoi(argv[1]);
    char number[16];
    if (!left)
        return 0;
    snprintf(number, sizeof number, "%d", left - 1);
    execl(argv[2], argv[2], number, argv[0], (char *)0);
    return 9;
}
