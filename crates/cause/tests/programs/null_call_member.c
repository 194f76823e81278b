// expect: null_call; called a function through a null pointer; start
struct driver { long id; int (*open)(void); };
__attribute__((noipa)) static int start(struct driver *driver) { return driver->open() + 1; }
int main(void) { struct driver driver = {1, 0}; return start(&driver); }
