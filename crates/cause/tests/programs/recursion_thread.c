// expect: stack_overflow; called itself too many times; down
// flags: -pthread
#include <pthread.h>
__attribute__((noipa)) static int down(volatile int *n) { volatile int next = *n + 1; return down(&next) + next; }
static void *work(void *p) { volatile int n = 0; return down(&n) ? p : 0; }
int main(void) { pthread_t t; pthread_create(&t, 0, work, 0); pthread_join(t, 0); return 0; }
