// expect: abort; called `abort`; stop
// builds: O0 O2
#[inline(never)]
fn stop(n: usize) { if n > 0 { std::process::abort() } }
fn main() { stop(std::env::args().count()); }
