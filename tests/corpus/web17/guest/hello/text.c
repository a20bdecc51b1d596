#include "greeting.h"

const char *text(int number) {
    static const char *const texts[] = {"good morning", "good day", "good night"};
    return texts[number];
}
