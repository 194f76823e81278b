// expect: raised; SIGSEGV to itself; give_up
#include <signal.h>
__attribute__((noipa)) static int give_up(int n) { return raise(SIGSEGV) + n; }
int main(int n, char **w) { (void)w; return give_up(n); }
