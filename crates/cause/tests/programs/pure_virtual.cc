// builds: O0 O2 Os
// expect: pure_virtual_call; pure virtual; prepare
struct base { base(); virtual int area() = 0; };
__attribute__((noipa)) static int prepare(base *b) { return b->area() + 1; }
base::base() { prepare(this); }
struct shape : base { int area() override { return 1; } };
int main() { shape s; return s.area(); }
