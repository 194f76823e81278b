// expect: abort; called `abort`; on_fault
#include <signal.h>
#include <stdlib.h>
__attribute__((noipa)) static void on_fault(int n) { (void)n; abort(); }
__attribute__((noipa)) static int load(int *at) { return *at; }
int main(void) { signal(SIGSEGV, on_fault); return load(0); }
