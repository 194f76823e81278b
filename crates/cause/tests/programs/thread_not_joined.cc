// expect: runtime_check; still running; start
// flags: -pthread
// builds: O0
#include <thread>
#include <unistd.h>
__attribute__((noipa)) static int start() { std::thread t([] { pause(); }); return 1; }
int main() { return start(); }
