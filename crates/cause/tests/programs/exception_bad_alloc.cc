// expect: uncaught_exception; std::bad_alloc; take
#include <new>
__attribute__((noipa)) static char *take(unsigned long n) { char *found = new char[n]; __asm__ volatile("" : "+r"(found)); return found; }
int main(int n, char **) { return take((1ul << 62) + n) == nullptr; }
