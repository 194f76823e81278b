// expect: rust_panic; index out of bounds: the len is 3 but the index is 9
// builds: O0 O2
#[inline(never)]
fn pick(list: &[u64], index: usize) -> u64 { list[index] }
fn main() { let list: Vec<u64> = (0..3).collect(); println!("{}", pick(&list, std::env::args().count() + 8)); }
