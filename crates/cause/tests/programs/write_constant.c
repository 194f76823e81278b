// expect: read_only_memory; read-only memory; set
static const int limits[4] = {1, 2, 3, 4};
__attribute__((noipa)) static void set(int *at) { *at = 9; }
int main(void) { set((int *)limits); return limits[0]; }
