// expect: sanitizer; heap-buffer-overflow; pick
// flags: -fsanitize=address
// env: ASAN_OPTIONS=abort_on_error=1:disable_coredump=0:symbolize=0
// builds: O0
#include <stdlib.h>
__attribute__((noipa)) static int pick(int *list, int at) { return list[at]; }
int main(void) { int *list = malloc(12); list[0] = 1; int found = pick(list, 3); free(list); return found; }
