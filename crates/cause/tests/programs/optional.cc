// expect: uncaught_exception; std::bad_optional_access; take
// flags: -std=c++17
#include <optional>
__attribute__((noipa)) static int take(const std::optional<int> &found) { return found.value() + 1; }
int main() { return take({}); }
