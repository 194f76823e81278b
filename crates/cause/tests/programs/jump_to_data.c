// expect: bad_jump; jumped to; not code
// machine: x86_64
static char data[64];
__attribute__((noipa)) static void leave(char *to) { __asm__ volatile("jmp *%0" : : "r"(to)); }
int main(void) { leave(data + 8); return 0; }
