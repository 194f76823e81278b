// expect: abort; std::terminate; stop
#include <exception>
__attribute__((noipa)) static void stop(int n) { if (n) std::terminate(); }
int main(int n, char **) { stop(n); }
