// expect: stack_overflow; stack; full
// builds: O0 O2
#[inline(never)]
fn down(n: &u64) -> u64 { let next = std::hint::black_box(*n + 1); down(&next) + std::hint::black_box(next) }
fn main() { println!("{}", down(&0)); }
