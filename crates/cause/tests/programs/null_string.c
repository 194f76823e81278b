// expect: null_pointer; strlen; through a null pointer; greet
#include <string.h>
__attribute__((noipa)) static unsigned long greet(const char *name) { return strlen(name) + 1; }
int main(void) { return (int)greet(0); }
