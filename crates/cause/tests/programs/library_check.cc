// expect: runtime_check; check of the C++ library; pick
// flags: -D_GLIBCXX_ASSERTIONS
// builds: O0 O2 Os
#include <vector>
__attribute__((noipa)) static int pick(std::vector<int> &list, unsigned long at) { return list[at]; }
int main() { std::vector<int> list(3); return pick(list, 9); }
