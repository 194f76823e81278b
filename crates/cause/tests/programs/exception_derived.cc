// expect: uncaught_exception; shop::Missing; order 7; find
#include <stdexcept>
namespace shop { struct Missing : std::runtime_error { using std::runtime_error::runtime_error; }; }
__attribute__((noipa)) static int find(int id) { if (id) throw shop::Missing("order 7 is missing"); return id; }
int main(int n, char **) { return find(n); }
