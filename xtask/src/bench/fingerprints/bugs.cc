// Twelve bugs: `bugs NUMBER main|thread`. Functions are kept apart as large ones are.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#define APART __attribute__((noinline))
static volatile int sink;
#ifdef V2
static volatile int history[512];
APART static int audit(int n) { for (int i = 0; i < 512; i++) history[i] = history[i] + n; return history[n & 7]; }
#define NOTE(n) (sink = sink + audit(n))
#else
#define NOTE(n) (sink = (n))
#endif
namespace shop {
struct Item { virtual ~Item() {} virtual int price() const { return 1; } int amount = 1; };
struct Book : Item { APART int price() const override { const volatile int *p = nullptr; int r = *p; NOTE(1); return r; } };
struct Order {
    std::vector<Item *> items;
    std::map<std::string, int> names;
    APART int total() const { int sum = 0; for (auto *item : items) sum += item->price(); NOTE(2); return sum; }
    APART int first() const { int r = items.at(5)->amount; NOTE(3); return r; }
    APART int find(const std::string &name) const { int r = names.at(name); NOTE(4); return r; }
};
template <class T> struct Cache {
    T *value = nullptr;
    APART T get(int n) { T r = value[n]; NOTE(5); return r; }
};
struct Base { Base() { NOTE(6); } virtual void run() = 0; APART void start() { run(); NOTE(7); } virtual ~Base() {} };
}
namespace {
APART int apply(const std::function<int(int)> &f, int n) { int r = f(n); NOTE(8); return r; }
APART void sum_orders() { shop::Book book; shop::Order order; order.items.push_back(&book); sink = order.total(); NOTE(9); }
APART void show_first() { shop::Order order; sink = order.first(); NOTE(10); }
APART void look_up() { shop::Order order; sink = order.find("nothing"); NOTE(11); }
APART void read_ints() { shop::Cache<int> cache; sink = cache.get(1); NOTE(12); }
APART void read_longs() { shop::Cache<long> cache; sink = static_cast<int>(cache.get(2)); NOTE(13); }
APART void map_values() { int *none = nullptr; sink = apply([none](int n) { int r = none[n]; NOTE(14); return r; }, 3); NOTE(15); }
APART bool before(const std::string &a, const std::string &b) { sink = *reinterpret_cast<volatile int *>(a.size() + 8); NOTE(16); return a < b; }
APART void sort_names() { std::vector<std::string> names{"b", "a", "c"}; std::sort(names.begin(), names.end(), before); NOTE(17); }
APART void refuse(int n) { if (n < 100) throw std::runtime_error("refused"); NOTE(18); }
APART void quiet(int n) noexcept { refuse(n); NOTE(19); }
APART void each_value() { std::vector<int> v{1, 2}; std::for_each(v.begin(), v.end(), [](int n) { sink = *reinterpret_cast<volatile int *>(n); NOTE(20); }); NOTE(21); }
APART void free_twice() { auto *text = new std::string("a long text that is on the heap for sure"); delete text; delete text; NOTE(22); }
APART void give_up() { std::terminate(); }
APART void long_name() { std::string name; name.resize(static_cast<size_t>(-5)); NOTE(23); }
APART void dispatch(int n) {
    void (*bugs[])() = {sum_orders, show_first, look_up, read_ints, read_longs, map_values, sort_names,
                        [] { quiet(1); NOTE(24); }, each_value, free_twice, give_up, long_name};
    bugs[n]();
    NOTE(25);
}
}
int main(int argc, char **argv) {
    int n = atoi(argv[1]);
    if (argc > 2 && !strcmp(argv[2], "thread")) std::thread([n] { dispatch(n); NOTE(26); }).join();
    else dispatch(n);
    return sink;
}
