/* sleeper ...: stays as it is until it is killed, at most a minute. */
#include <unistd.h>

int main(void) {
    alarm(60);
    for (;;)
        pause();
}
