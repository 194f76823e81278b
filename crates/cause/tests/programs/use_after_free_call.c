// expect: use_after_free; after it was freed; fire
#include <stdlib.h>
struct event { void (*handler)(void); long data; };
__attribute__((noipa)) static int fire(struct event *event) { event->handler(); return 1; }
__attribute__((noipa)) static void drop(struct event *event) { free(event); }
static void nothing(void) {}
int main(void) { struct event *event = malloc(sizeof *event); event->handler = nothing; drop(event); return fire(event); }
