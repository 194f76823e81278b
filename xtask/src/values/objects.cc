// flags: -std=c++20
// Types of C++, in arguments and locals of several functions, at the time of a crash.
#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

volatile int *volatile nowhere;

namespace shop {
enum class Kind : unsigned char { Book, Pen = 7 };
enum Level : long { LOW = -1, HIGH = 1L << 40 };
struct Item {
    std::string name;
    Kind kind = Kind::Book;
    int price = 0;
    static int count;
    static constexpr double tax = 0.19;
};
int Item::count = 12;
class Shape {
  public:
    virtual ~Shape() {}
    virtual double area() const = 0;
    int id = 4;

  protected:
    const char *label = "shape";
};
class Square : public Shape {
  public:
    explicit Square(double side) : side(side) {}
    double area() const override { return side * side; }
    double side;
};
struct Left : virtual Shape { int left = 1; };
struct Right : virtual Shape { int right = 2; };
struct Both : Left, Right {
    double area() const override { return left + right; }
    int both = 3;
};
struct Empty {};
struct Derived : Empty, Item { Derived() { name = "derived"; } };
template <typename T, int N> struct Box {
    T values[N];
    T Box::*member = nullptr;
    T &first() { return values[0]; }
};
} // namespace shop

using namespace shop;

__attribute__((noinline)) int crash(int code) {
    *nowhere = code;
    return code;
}

template <typename T> __attribute__((noinline)) int scalars(T value, const T &reference, T &&rvalue, const T *pointer) {
    std::nullptr_t null = nullptr;
    int Item::*member = &Item::price;
    double (Shape::*method)() const = &Shape::area;
    auto lambda = [&, copy = value](int x) { return crash(x + static_cast<int>(copy) + static_cast<int>(reference)); };
    std::atomic<int> atomic{5};
    bool flag = value > T(1);
    char8_t *none = nullptr;
    return lambda(3) + (null == nullptr) + (member != nullptr) + (method != nullptr) + atomic + flag + (none == nullptr) + static_cast<int>(rvalue) + static_cast<int>(*pointer);
}

__attribute__((noinline)) int containers(const std::vector<Item> &items, std::map<std::string, int> map, std::string_view view) {
    std::string empty, small = "small", large(100, 'x');
    std::vector<int> numbers{1, 2, 3}, none;
    std::vector<std::string> words{"a", "b"};
    std::array<int, 3> array{1, 2, 3};
    std::unordered_map<int, std::string> table{{1, "one"}, {2, "two"}};
    std::optional<std::string> some = "some", nothing;
    std::variant<int, std::string> variant = 4;
    std::tuple<int, char, double> tuple{1, 'c', 2.5};
    std::pair<std::string, int> pair{"pair", 2};
    auto unique = std::make_unique<Item>(Item{"unique"});
    auto shared = std::make_shared<Square>(2.0);
    std::weak_ptr<Square> weak = shared;
    std::function<int(int)> function = [&](int x) { return x + static_cast<int>(numbers.size()); };
    long local = static_cast<long>(items.size());
    return scalars<long>(local + 2, local, 5L, &local) + static_cast<int>(map.size() + view.size() + empty.size() + small.size() + large.size() + none.size() + words.size() + table.size()) + function(1) + array[0] + some->length() + nothing.has_value() + variant.index() + std::get<0>(tuple) + pair.second + unique->price + weak.use_count();
}

__attribute__((noinline)) int objects(const Shape &shape, Shape *base, Derived derived, Kind kind, Level level) {
    Square square(3);
    Both both;
    Left &left = both;
    Box<int, 3> box{{1, 2, 3}};
    Box<double, 2> doubles{{0.5, 1.5}};
    Empty nothing;
    union { int number; char letters[4]; } anonymous = {0x61626364};
    const Square *const same = &square;
    std::vector<Item> items{{"one", Kind::Pen, 3}, {"two", Kind::Book, 4}};
    int result = containers(items, {{"a", 1}, {"b", 2}}, "a view");
    return result + static_cast<int>(shape.area() + base->area() + both.area()) + left.left + box.first() + static_cast<int>(doubles.first()) + sizeof nothing + anonymous.number + (same != nullptr) + derived.price + static_cast<int>(kind) + (level == LOW);
}

int main(int argc, char **) {
    std::thread other([] { for (;;) std::this_thread::sleep_for(std::chrono::seconds(10)); });
    Square square(argc + 0.5);
    Both both;
    return objects(square, &both, Derived(), Kind::Pen, HIGH);
}
