// expect: sent_by_process; sent SIGQUIT to the program while it was in; did not crash by itself
#include <signal.h>
#include <unistd.h>
int main(void) { pid_t me = getpid(); if (fork() == 0) { union sigval v = {7}; usleep(50000); sigqueue(me, SIGQUIT, v); _exit(0); } for (;;) pause(); }
