// expect: assertion; the cart is empty; checkout
#undef NDEBUG
#include <cassert>
namespace shop { template <class T> __attribute__((noipa)) int checkout(T count) { assert(count > 0 && "the cart is empty: add an item"); return count; } }
int main(int n, char **) { return shop::checkout<int>(n - 1); }
