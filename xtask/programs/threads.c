// Sixteen threads, one of which dies; the others wait.
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

static pthread_barrier_t started;

__attribute__((noinline)) static void store_result(int *slot, int value) {
    *slot = value;
}

static void *worker(void *argument) {
    intptr_t number = (intptr_t)argument;
    pthread_barrier_wait(&started);
    if (number == 7)
        store_result((int *)0x1000, 42);
    for (;;)
        pause();
    return NULL;
}

int main(void) {
    pthread_t threads[15];
    pthread_barrier_init(&started, NULL, 16);
    for (intptr_t i = 0; i < 15; i++)
        pthread_create(&threads[i], NULL, worker, (void *)i);
    pthread_barrier_wait(&started);
    for (int i = 0; i < 15; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
