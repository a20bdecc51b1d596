int count(void) { return 5; }
