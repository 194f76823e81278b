//! `cargo +nightly fuzz run core`: any bytes as a core, as a stream and at rest, and as an object.

#![no_main]

use cdh_elfcore::{Avma, CoreFile, CoreHead, ElfObject, Memory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut stream = data;
    let _ = CoreHead::from_reader(&mut stream);
    if let Ok(core) = CoreFile::open(Box::new(data.to_vec())) {
        let _ = (core.completeness(), core.modules(), core.head().signal());
        let mut page = [0; 4096];
        for segment in core.head().segments().iter().take(16) {
            let _ = core.read(segment.start, &mut page);
        }
        let _ = core.read(Avma(u64::MAX), &mut page);
    }
    if let Ok(object) = ElfObject::parse(data) {
        let _ = (
            object.build_id(),
            object.symbols(),
            object.debug_link(),
            object.soname(),
        );
    }
});
