// Types of C, in arguments and locals of several functions, at the time of a crash.
#include <complex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <uchar.h>
#include <wchar.h>

enum color { RED, GREEN = 5, BLUE };
enum flags { NONE = 0, A = 1, B = 2, C = 4 };
enum negative { BELOW = -3, ABOVE = 3 };
typedef struct { double x, y; } point;
struct node { struct node *next, *previous; const char *name; point at; };
struct bits { unsigned a : 3; int b : 5; bool c : 1; enum color d : 4; uint64_t wide : 40; signed char e : 4; };
struct packed { char c; int i; short s; } __attribute__((packed));
union number { int i; float f; unsigned char bytes[4]; };
struct outer {
    struct { int one; struct { char two[3]; } inner; };
    union number number;
    struct packed packed[2];
    int (*compare)(const void *, const void *);
    void *context;
    struct outer *self;
    long empty[0];
};
typedef int vector4 __attribute__((vector_size(16)));
struct flexible { int count; int items[]; };

volatile int *volatile nowhere;
static int counter = 41;
static const char *const words[] = {"alpha", "beta", "", NULL};

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

__attribute__((noinline)) static int crash(int code, const char *why) {
    static int calls;
    calls++;
    *nowhere = code;
    return calls + (why != NULL);
}

__attribute__((noinline)) static int numbers(int8_t i8, uint8_t u8, int16_t i16, uint16_t u16, int32_t i32, uint32_t u32, int64_t i64, uint64_t u64) {
    float f = 1.5f * i8, tiny = 1e-40f;
    double d = i64 / 3.0, nan = __builtin_nan(""), inf = -__builtin_inf(), big = 1e300;
    long double ld = 1.0L / 3;
    __int128 wide = (__int128)i64 << 65;
    unsigned __int128 uwide = ~(unsigned __int128)0;
    float complex fc = 1.0f + 2.0f * I;
    wchar_t wc = L'x';
    char16_t c16 = u'\u00e9';
    char32_t c32 = U'\U0001f600';
    bool yes = u8 > 3, no = !yes;
    char ch = 'A', escape = '\n', high = (char)0xe4;
    int result = crash(i16 + u16 + i32 + (int)u32 + (int)u64, words[yes]);
    return result + f + tiny + d + nan + inf + big + (double)ld + (int)wide + (int)uwide + crealf(fc) + wc + c16 + c32 + no + ch + escape + high;
}

__attribute__((noinline)) static int arrays(int count, char *argv[]) {
    int one[5] = {1, 2, 3, 4, 5}, two[2][3] = {{1, 2, 3}, {4, 5, 6}}, three[2][2][2] = {{{1}}};
    int same[300] = {0}, runs[40];
    for (int i = 0; i < 40; i++) runs[i] = i < 20 ? 7 : i;
    int vla[count + 2];
    for (int i = 0; i < count + 2; i++) vla[i] = i * i;
    char text[64] = "text with \"quotes\"\tand \x01", raw[3] = {'a', 'b', 'c'}, full[4] = "full";
    unsigned char bytes[16] = {0, 1, 2, 0xff, 0xfe};
    wchar_t wide[8] = L"wide";
    char16_t u16[] = u"u16 \u00e9";
    const char *list[3] = {"one", NULL, words[1]};
    vector4 vector = {1, 2, 3, 4};
    point points[2] = {{1, 2}, {3.5, -4}};
    qsort(one, 5, sizeof *one, compare);
    int result = numbers(-5, 200, -300, 60000, count, 4000000000u, -5000000000, 18000000000000000000u);
    return result + one[0] + two[1][2] + three[0][0][0] + same[3] + runs[5] + vla[1] + text[0] + raw[0] + full[1] + bytes[3] + wide[0] + u16[0] + (list[0] != argv[0]) + vector[2] + points[1].x;
}

__attribute__((noinline)) static int records(struct outer by_value, const struct outer *by_pointer, point at, struct bits bits, union number number) {
    struct node first = {NULL, NULL, "first", at}, second = {&first, &first, words[1], {0, -0.0}};
    first.next = &second;
    struct packed packed = {'p', -70000, -2};
    struct flexible *flexible = malloc(sizeof *flexible + 3 * sizeof(int));
    flexible->count = 3;
    enum color color = BLUE, wrong = 77;
    enum flags flags = A | C, more = 9;
    enum negative negative = BELOW;
    struct bits copy = bits;
    point (*row)[2] = &(point[2]){{1, 1}, {2, 2}};
    int (*callback)(const void *, const void *) = by_value.compare;
    void *self = &self;
    const struct node *const volatile chain = &second;
    int result = arrays(by_value.one, (char *[]){"argument", NULL});
    return result + packed.i + flexible->count + color + wrong + flags + more + negative + copy.b + row[0]->x + (callback != NULL) + (self != NULL) + (chain != NULL) + by_pointer->one + number.i;
}

int main(int argc, char **argv) {
    struct outer outer = {.one = argc, .inner = {"ab"}, .number = {.f = 1.5f}, .packed = {{'x', 1, 2}, {'y', -1, -2}}, .compare = compare, .context = &counter};
    outer.self = &outer;
    struct bits bits = {5, -7, true, GREEN, 1099511627775u, -3};
    union number number = {.i = 0x41424344};
    return records(outer, &outer, (point){2.5, 1e-9}, bits, number) + (argv != NULL);
}
