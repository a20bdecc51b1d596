#include <stdio.h>
#include "greeting.h"
#include "version.h"

int main(void) {
    for (int i = 0; i < count(); i++)
        printf("%s %d %s\n", greeting(i), i, VERSION);
    return 0;
}
