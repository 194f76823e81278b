// expect: null_pointer; null pointer; load
// builds: O0 O2
#[inline(never)]
fn load(at: *const u64) -> u64 { unsafe { at.read_volatile() } }
fn main() { println!("{}", load(std::ptr::without_provenance(0x18 * (std::env::args().count() - 1)))); }
