// expect: bad_pointer; nothing is mapped; get
#include <stdlib.h>
#include <sys/mman.h>
struct item { long key; int value; };
__attribute__((noipa)) static int get(struct item *item) { return item->value; }
int main(void) {
    struct item *item = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned low = (unsigned)(unsigned long)item;
    return get((struct item *)(unsigned long)(low | 0x60000000));
}
