// expect: uncaught_exception; int; 42; find
__attribute__((noipa)) static int find(int id) { if (id) throw id + 41; return id; }
int main(int n, char **) { return find(n); }
