// expect: read_only_memory; read-only memory; upper
__attribute__((noipa)) static void upper(char *text) { text[0] = 'H'; }
int main(void) { upper("hello"); return 0; }
