// expect: uncaught_exception; std::runtime_error; worker failed; work
// flags: -pthread
#include <stdexcept>
#include <thread>
__attribute__((noipa)) static void work(int n) { if (n) throw std::runtime_error("worker failed"); }
int main(int n, char **) { std::thread t(work, n); t.join(); }
