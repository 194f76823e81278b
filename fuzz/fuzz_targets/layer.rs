//! `cargo +nightly fuzz run layer`: any bytes as a layer of an image, and as the index of one.

#![no_main]

use cdh_sysroot::LayerIndex;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = LayerIndex::read(data);
    let Ok(index) = LayerIndex::from_blob(data) else {
        return;
    };
    let mut written = Vec::new();
    index.write(&mut written).expect("a vector takes all");
    let _ = LayerIndex::read(written.as_slice()).expect("what was written can be read");
});
