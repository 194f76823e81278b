// expect: use_after_free; after it was freed; sum
#include <stdlib.h>
struct node { struct node *next; long value; };
__attribute__((noipa)) static long sum(struct node *node) { long s = 0; for (; node; node = node->next) s += node->value; return s; }
__attribute__((noipa)) static void drop(struct node *node) { while (node) { struct node *next = node->next; free(node); node = next; } }
int main(void) {
    struct node *list = 0;
    for (int i = 0; i < 3; i++) { struct node *node = malloc(sizeof *node); node->next = list; node->value = i; list = node; }
    drop(list);
    return (int)sum(list);
}
