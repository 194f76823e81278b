// expect: null_pointer; null pointer; last
struct node { struct node *next; long value; };
__attribute__((noipa)) static long last(struct node *node) { while (node->next != (struct node *)1) node = node->next; return node->value; }
int main(void) { struct node b = {0, 2}, a = {&b, 1}; return (int)last(&a); }
