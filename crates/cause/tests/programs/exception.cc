// expect: uncaught_exception; std::runtime_error; no such order; find
#include <stdexcept>
__attribute__((noipa)) static int find(int id) { if (id) throw std::runtime_error("no such order"); return id; }
int main(int n, char **) { return find(n); }
