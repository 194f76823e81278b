// expect: stack_overflow; called itself too many times; down
__attribute__((noipa)) static int down(volatile int *n) { volatile int next = *n + 1; return down(&next) + next; }
int main(void) { volatile int n = 0; return down(&n); }
