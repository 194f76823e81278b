// builds: O0
// expect: uncaught_exception; a destructor that ran because of another exception; close failed
#include <stdexcept>
struct File { ~File() noexcept(false) { throw std::runtime_error("close failed"); } };
__attribute__((noinline)) static void work() { File file; throw std::logic_error("bad state"); }
int main() { try { work(); } catch (const std::exception &) { return 1; } }
