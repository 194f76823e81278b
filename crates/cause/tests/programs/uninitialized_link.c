// expect: use_after_free; after it was freed, or before it was filled; next_of
#include <stdlib.h>
struct node { struct node *next; long value; };
__attribute__((noipa)) static long next_of(struct node *node) { return node->next->value; }
__attribute__((noipa)) static struct node *make(void) { return malloc(sizeof(struct node)); }
int main(void) { struct node *a = make(), *b = make(), *c = make(); free(c); free(b); free(a); struct node *d = make(); struct node copy = *d; free(d); return (int)next_of(&copy); }
