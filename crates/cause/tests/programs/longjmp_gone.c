// expect: runtime_check; longjmp; leave
// flags: -D_FORTIFY_SOURCE=2
// builds: O2
#include <setjmp.h>
static jmp_buf place;
__attribute__((noipa)) static int mark(void) { volatile char room[4000]; room[0] = 1; return setjmp(place) + room[0]; }
__attribute__((noipa)) static void leave(void) { longjmp(place, 1); }
int main(void) { mark(); leave(); return 0; }
