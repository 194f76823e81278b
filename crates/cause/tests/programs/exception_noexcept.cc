// expect: uncaught_exception; std::logic_error; must not let exceptions through; find
#include <stdexcept>
__attribute__((noipa)) static int find(int id) { if (id) throw std::logic_error("twice"); return id; }
__attribute__((noipa)) static int quiet(int id) noexcept { return find(id) + 1; }
int main(int n, char **) { try { return quiet(n); } catch (...) { return 3; } }
