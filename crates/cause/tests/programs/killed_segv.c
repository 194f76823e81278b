// expect: sent_by_process; sent SIGSEGV to the program; did not crash by itself
#include <signal.h>
#include <unistd.h>
int main(void) { pid_t me = getpid(); if (fork() == 0) { usleep(50000); kill(me, SIGSEGV); _exit(0); } for (;;) pause(); }
