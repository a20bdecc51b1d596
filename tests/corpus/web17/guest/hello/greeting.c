#include "greeting.h"

const char *greeting(int number) { return text(number % 3); }
