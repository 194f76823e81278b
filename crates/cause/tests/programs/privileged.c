// expect: privileged_instruction; only the kernel; halt
// machine: x86_64
__attribute__((noipa)) static void halt(void) { __asm__ volatile("hlt"); }
int main(void) { halt(); return 0; }
