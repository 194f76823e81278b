// expect: non_canonical_pointer; AAAAAAAA; show
#include <string.h>
struct name { char text[16]; int *count; };
__attribute__((noipa)) static int show(struct name *name) { return *name->count; }
__attribute__((noipa)) static void set(char *to, int n) { memset(to, 'A', n); }
int main(void) { struct name name = {{0}, 0}; set(name.text, 24); return show(&name); }
