/* Ends by a signal of its own making. */
int main(void) {
    int *volatile nowhere = 0;
    return *nowhere;
}
