// expect: read_only_memory; read-only memory; patch
__attribute__((noipa)) static void patch(char *code) { *code = 1; }
int main(void) { patch((char *)main); return 0; }
