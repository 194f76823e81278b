// expect: rust_panic; called `Option::unwrap()` on a `None` value; find
// builds: O0 O2
#[inline(never)]
fn find(id: usize) -> usize { [1usize, 2].iter().copied().find(|n| *n == id).unwrap() }
fn main() { println!("{}", find(std::env::args().count() + 8)); }
