// expect: double_free; already free; drop
struct thing { long a = 1, b = 2; ~thing() { a = 0; } };
__attribute__((noipa)) static void drop(thing *t) { delete t; __asm__ volatile(""); }
int main() { thing *t = new thing; drop(t); drop(t); return 0; }
