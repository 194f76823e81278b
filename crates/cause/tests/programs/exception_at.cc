// expect: uncaught_exception; std::out_of_range; pick
#include <vector>
__attribute__((noipa)) static int pick(std::vector<int> &list, unsigned long at) { return list.at(at); }
int main() { std::vector<int> list(3); return pick(list, 9); }
