// expect: abort; could not allocate memory in `rust_alloc::reserve`
// builds: O0 O2
#[inline(never)]
fn reserve(count: usize) -> Vec<u64> {
    Vec::with_capacity(count << 58)
}
fn main() {
    println!("{}", reserve(std::env::args().count()).len());
}
