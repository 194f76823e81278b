// expect: uncaught_exception; no exception to throw; again
__attribute__((noinline)) static void again() { throw; }
int main() { again(); }
