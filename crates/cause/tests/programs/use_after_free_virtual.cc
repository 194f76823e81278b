// expect: use_after_free; after it was freed; draw
struct shape { virtual ~shape() {} virtual int area() { return 1; } long size = 4; };
__attribute__((noipa)) static int draw(shape *s) { return s->area(); }
__attribute__((noipa)) static void drop(shape *s) { delete s; }
int main() { shape *s = new shape; drop(s); return draw(s); }
