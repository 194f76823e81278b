// expect: uncaught_exception; std::logic_error; inner; clean
#include <stdexcept>
__attribute__((noipa)) static void clean(int id) { if (id) throw std::logic_error("inner"); }
struct guard { int id; ~guard() noexcept(false) { clean(id); } };
__attribute__((noipa)) static void work(int id) { guard g{id}; throw std::runtime_error("outer"); }
int main(int n, char **) { try { work(n); } catch (std::runtime_error &) { return 1; } }
