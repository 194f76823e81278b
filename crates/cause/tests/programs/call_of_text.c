// expect: bad_call; text (`oo long`) is where a pointer should be; run
// machine: x86_64
#include <string.h>
typedef int (*operation)(int);
struct machine { char name[16]; operation operations[2]; };
__attribute__((noipa)) static int run(struct machine *m, int which, int x) { return m->operations[which](x) + 1; }
__attribute__((noipa)) static int increment(int x) { return x + 1; }
int main(void) { struct machine m = {"vm", {increment, increment}}; memcpy(m.name, "a name that is too long", 23); m.name[23] = 0; return run(&m, 0, 4); }
