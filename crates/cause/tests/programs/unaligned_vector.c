// expect: unaligned_access; multiple of 16; load
// machine: x86_64
#include <emmintrin.h>
__attribute__((noipa)) static int load(char *at) { __m128i v; __asm__ volatile("movdqa (%1), %0" : "=x"(v) : "r"(at)); return _mm_cvtsi128_si32(v); }
int main(void) { static char list[64] __attribute__((aligned(16))); return load(list + 4); }
