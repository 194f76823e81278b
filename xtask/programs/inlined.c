// Dies three inlined calls deep.
#include <stdio.h>
#include <stdlib.h>

struct order {
    int id;
    int *price;
};

static inline __attribute__((always_inline)) int price_of(const struct order *order) {
    return *order->price;
}

static inline __attribute__((always_inline)) int total(const struct order *orders, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++)
        sum += price_of(&orders[i]);
    return sum;
}

__attribute__((noinline)) static int checkout(const struct order *orders, int count) {
    int sum = total(orders, count);
    printf("total: %d\n", sum);
    return sum;
}

int main(int argc, char **argv) {
    int price = argc;
    struct order orders[] = {{1, &price}, {2, NULL}};
    (void)argv;
    return checkout(orders, 2) == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
