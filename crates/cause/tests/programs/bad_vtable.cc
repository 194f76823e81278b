// expect: non_canonical_pointer; draw
#include <cstring>
struct shape { virtual int area() { return 1; } long size = 4; };
__attribute__((noipa)) static int draw(shape *s) { return s->area(); }
__attribute__((noipa)) static void fill(void *p) { memset(p, 0x42, 16); }
int main() { shape *s = new shape; fill(s); return draw(s); }
