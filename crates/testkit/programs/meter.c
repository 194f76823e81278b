/* Stands between the kernel and a handler and measures it: meter FILE PROGRAM ARGUMENTS…
   Adds a line "PEAK_KIB CPU_MILLISECONDS" to FILE when the program and its children have ended. The
   core goes to the program alone, which may close it whenever it likes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
    if (count < 3) return 90;
    int is_service = !!getenv("LISTEN_FDS");
    pid_t child = fork();
    if (!child) {
        /* A socket that was passed on (sd_listen_fds(3)) is meant for the program. */
        char pid[32], *nothing[] = {0}, *socket[] = {"LISTEN_FDS=1", pid, 0};
        snprintf(pid, sizeof pid, "LISTEN_PID=%d", getpid());
        execve(words[2], words + 2, is_service ? socket : nothing);
        _exit(92);
    }
    close(0);
    int status = 0;
    struct rusage used;
    wait4(child, &status, 0, &used);
    char line[64];
    long cpu = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000 +
               (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1000;
    snprintf(line, sizeof line, "%ld %ld\n", used.ru_maxrss, cpu);
    int file = open(words[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return file < 0 || write(file, line, strlen(line)) < 0;
}
