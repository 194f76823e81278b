// expect: uncaught_exception; shop::Missing; find
#include <exception>
namespace shop { struct Missing : std::exception { int id = 4; const char *what() const noexcept override { return "gone"; } }; }
__attribute__((noipa)) static int find(int id) { if (id) throw shop::Missing(); return id; }
int main(int n, char **) { return find(n); }
