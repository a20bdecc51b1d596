const char *greeting(int number);
int count(void);
const char *text(int number);
