// expect: missing_cpu_feature; FMA4; fast
// machine: x86_64
__attribute__((noipa)) static void fast(void) { __asm__ volatile("vfmaddps %xmm0, %xmm1, %xmm2, %xmm3"); }
int main(void) { fast(); return 0; }
