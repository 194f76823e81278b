// expect: illegal_instruction; not an instruction; jump
// machine: x86_64
__attribute__((noipa)) static void jump(void) { __asm__ volatile(".byte 0x06, 0x06, 0x06, 0x06"); }
int main(void) { jump(); return 0; }
