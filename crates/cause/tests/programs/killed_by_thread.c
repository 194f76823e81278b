// expect: raised; The program sent SIGABRT to itself while this thread was in `wait_for_work`
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
static void *watchdog(void *unused) { sigset_t all; sigfillset(&all); pthread_sigmask(SIG_BLOCK, &all, 0); usleep(100000); kill(getpid(), SIGABRT); pause(); return unused; }
__attribute__((noipa)) static int wait_for_work(int fd) { char c; int got = read(fd, &c, 1); __asm__ volatile("" : "+r"(got)); return got; }
int main(void) { int ends[2]; pipe(ends); pthread_t thread; pthread_create(&thread, 0, watchdog, 0); return wait_for_work(ends[0]); }
