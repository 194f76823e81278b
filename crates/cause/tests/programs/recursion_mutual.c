// expect: stack_overflow; called each other too many times; ping; pong
__attribute__((noipa)) static int ping(volatile int *n);
__attribute__((noipa)) static int pong(volatile int *n) { volatile int next = *n + 1; return ping(&next) + next; }
__attribute__((noipa)) static int ping(volatile int *n) { volatile int next[9]; next[0] = *n + 1; return pong(next) + next[0]; }
int main(void) { volatile int n = 0; return ping(&n); }
