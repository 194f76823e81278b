// expect: uncaught_exception; std::logic_error; the second; second
#include <stdexcept>
__attribute__((noipa)) static void first(int id) { if (id) throw std::runtime_error("the first one, which is caught"); }
__attribute__((noipa)) static void second(int id) { if (id) throw std::logic_error("the second"); }
int main(int n, char **) { for (int i = 0; i < 3; i++) try { first(n); } catch (std::exception &) {} second(n); }
