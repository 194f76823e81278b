// expect: use_after_free; after it was freed; name_of
// flags: -pthread
#include <pthread.h>
#include <stdlib.h>
struct user { char *name; int id; };
__attribute__((noipa)) static int name_of(struct user *user) { return user->name[0]; }
__attribute__((noipa)) static void drop(struct user *user) { free(user); }
static void *work(void *p) { struct user *user = malloc(sizeof *user); user->name = "a"; drop(user); return name_of(user) ? p : 0; }
int main(void) { pthread_t t; pthread_create(&t, 0, work, 0); pthread_join(t, 0); return 0; }
