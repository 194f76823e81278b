//! `cargo +nightly fuzz run backtrace`: a core and the files of its modules, all hostile: unwound and named.
//!
//! ```text
//! core size u32le | file size u32le | debug file size u32le | core | file | debug file | split DWARF
//! ```
//! `cargo xtask fixtures --seeds DIR` writes such inputs from real crashes. An input that takes more than a
//! second of the processor is a find; the clock of the wall would count the time in which the fuzzer was
//! stopped for others.

#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use cdh_elfcore::{CoreFile, ElfObject};
use cdh_symbolize::{
    BacktraceOptions, Bytes, LoadedModule, SectionArena, Surroundings, backtrace_with, module_needs,
};
use libfuzzer_sys::fuzz_target;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of the processor, all threads together.
const LIMIT: u64 = 1000;
/// What the slowest input so far took.
static SLOWEST: AtomicU64 = AtomicU64::new(50);

fn processor_time() -> u64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

fn check_time(start: u64) {
    let took = processor_time() - start;
    if took > SLOWEST.fetch_max(took, Ordering::Relaxed) {
        eprintln!("slowest input so far: {took} ms");
    }
    assert!(took <= LIMIT, "this input takes {took} ms");
}

struct Split<'a>(&'a [u8]);

impl Surroundings for Split<'_> {
    fn split_unit(&self, _: usize, _: &[u8], _: &[u8]) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| Box::new(self.0.to_vec()) as Bytes)
    }
    fn split_package(&self, _: usize) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| Box::new(self.0.to_vec()) as Bytes)
    }
    fn remembered(&self, _: &str) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| Box::new(self.0.to_vec()) as Bytes)
    }
}

fn part<'a>(rest: &mut &'a [u8], size: &[u8]) -> &'a [u8] {
    let size = size.try_into().map_or(0, u32::from_le_bytes) as usize;
    let (part, left) = rest.split_at(size.min(rest.len()));
    *rest = left;
    part
}

fuzz_target!(|data: &[u8]| {
    let start = processor_time();
    run(data);
    check_time(start);
});

fn run(data: &[u8]) {
    let Some((head, mut rest)) = data.split_at_checked(12) else {
        return;
    };
    let core = part(&mut rest, &head[..4]);
    let file = part(&mut rest, &head[4..8]);
    let debug = part(&mut rest, &head[8..]);
    let Ok(core) = CoreFile::open(Box::new(core.to_vec())) else {
        return;
    };
    let mut modules = core.modules();
    // The build-ids would keep every damaged file out.
    modules.iter_mut().for_each(|module| module.build_id = None);
    modules.truncate(8);
    let arena = SectionArena::with_limit(64 << 20);
    let debug = ElfObject::parse(debug).ok();
    let load = |module| LoadedModule {
        debug: debug.clone(),
        alt: debug.clone(),
        ..LoadedModule::from_file(module, file)
    };
    let loaded: Vec<_> = modules.iter().map(load).collect();
    let options = BacktraceOptions {
        all_threads: true,
        max_frames: 64,
        knows_crashed: core.head().knows_crashed_thread(),
        signal: core.head().signal(),
        crashed: None,
    };
    let threads = core.head().threads();
    let threads = &threads[..threads.len().min(8)];
    let _ = module_needs(threads, &core, &loaded, &arena, &options);
    let _ = backtrace_with(threads, &core, &loaded, &arena, &options, &Split(rest));
}
