// expect: rust_panic; order 9 is missing; find
// builds: O0 O2
#[inline(never)]
fn find(id: usize) -> usize { if id > 3 { panic!("order {id} is missing") } id }
fn main() { println!("{}", find(std::env::args().count() + 8)); }
