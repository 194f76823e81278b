// expect: sent_by_process; sent SIGABRT to the program; did not crash by itself
#include <signal.h>
#include <unistd.h>
int main(void) { pid_t me = getpid(); if (fork() == 0) { usleep(50000); kill(me, SIGABRT); _exit(0); } for (;;) pause(); }
