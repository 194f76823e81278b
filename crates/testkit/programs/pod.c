// The only program in the images of test pods.
//   pod pause                    waits for SIGTERM
//   pod crash COUNT NOTE         prints, then COUNT processes crash: children first, itself last
//   pod wait COUNT NOTE          the same after SIGUSR1
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) { (void)number; _exit(0); }
static void go(int number) { (void)number; }

__attribute__((noinline)) static int take_order(int *order) { return *order; }
__attribute__((noinline)) static int serve(int number) {
    printf("process %d takes order %d\n", getpid(), number);
    fflush(stdout);
    return take_order((int *)(long)(number & 0));
}

int main(int argc, char **argv) {
    signal(SIGTERM, end);
    if (argc < 4) for (;;) pause();
    if (!strcmp(argv[1], "wait")) {
        signal(SIGUSR1, go);
        pause();
    }
    int count = atoi(argv[2]);
    const char *token = getenv("API_TOKEN");
    printf("%s starts, token %s\n", argv[3], token ? token : "none");
    fflush(stdout);
    for (int number = 1; number < count; number++) {
        pid_t child = fork();
        if (!child) return serve(number);
        waitpid(child, 0, 0);
    }
    return serve(count);
}
