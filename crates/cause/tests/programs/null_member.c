// expect: null_pointer; through a null pointer; total; offset 0x18
struct order { long id, user, day; int count; };
__attribute__((noipa)) static int total(struct order *order) { return order->count; }
int main(int n, char **w) { (void)w; return total(n > 9 ? (struct order *)w : 0); }
