// expect: uncaught_exception; std::bad_function_call; fire
#include <functional>
__attribute__((noipa)) static int fire(const std::function<int()> &handler) { return handler() + 1; }
int main() { return fire({}); }
