// expect: assertion; count > 0; checkout
#undef NDEBUG
#include <assert.h>
__attribute__((noipa)) static int checkout(int count) { assert(count > 0); return count; }
int main(int n, char **w) { (void)w; return checkout(n - 1); }
