// expect: uncaught_exception; std::bad_cast; square
struct shape { virtual ~shape() {} };
struct box : shape { int size = 1; };
__attribute__((noipa)) static int square(shape &s) { return dynamic_cast<box &>(s).size + 1; }
int main() { shape s; return square(s); }
