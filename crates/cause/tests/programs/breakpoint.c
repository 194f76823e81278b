// expect: breakpoint; breakpoint; stop
// machine: x86_64
__attribute__((noipa)) static void stop(void) { __asm__ volatile("int3"); }
int main(void) { stop(); return 0; }
