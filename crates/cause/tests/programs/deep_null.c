// expect: null_pointer; null pointer; price
struct tax { int rate; }; struct item { long id; struct tax *tax; }; struct cart { int count; struct item items[4]; };
__attribute__((noipa)) static int price(struct cart *cart, int at) { return cart->items[at].tax->rate; }
int main(int n, char **w) { (void)w; struct cart cart = {n, {{0}}}; return price(&cart, 2); }
