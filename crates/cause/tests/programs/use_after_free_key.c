// expect: use_after_free; after it was freed; second
#include <stdlib.h>
struct pair { long first; int *second; };
__attribute__((noipa)) static int second(struct pair *pair) { return *pair->second; }
__attribute__((noipa)) static void drop(struct pair *pair) { free(pair); }
int main(void) { struct pair *pair = malloc(sizeof *pair); pair->second = 0; drop(pair); return second(pair); }
