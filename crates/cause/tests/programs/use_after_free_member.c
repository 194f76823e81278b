// expect: use_after_free; after it was freed; name_of
#include <stdlib.h>
struct user { char *name; int id; };
__attribute__((noipa)) static int name_of(struct user *user) { return user->name[0]; }
__attribute__((noipa)) static void drop(struct user *user) { free(user); }
int main(void) { struct user *user = malloc(sizeof *user); user->name = "a"; drop(user); return name_of(user); }
