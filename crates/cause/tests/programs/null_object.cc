// expect: null_pointer; null pointer; draw
struct shape { virtual int area() { return 1; } long size = 4; };
__attribute__((noipa)) static int draw(shape *s) { return s->area(); }
int main() { return draw(nullptr); }
