// expect: uncaught_exception; char const*; out of stock; find
__attribute__((noipa)) static int find(int id) { if (id) throw "out of stock"; return id; }
int main(int n, char **) { return find(n); }
