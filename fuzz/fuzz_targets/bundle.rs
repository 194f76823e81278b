//! `cargo +nightly fuzz run bundle`: any bytes as a bundle, read in every way.

#![no_main]

use std::io::Read;
use std::sync::Arc;

use cdh_bundle::BundleReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(bundle) = BundleReader::open(Arc::new(data.to_vec())) else {
        return;
    };
    let _ = (bundle.summary_manifest(), bundle.verify());
    let mut sink = Vec::new();
    for entry in bundle.entries().iter().take(16) {
        if let Ok(reader) = bundle.entry_reader(entry) {
            sink.clear();
            let _ = reader.take(1 << 20).read_to_end(&mut sink);
        }
    }
    if let Ok(Some(reader)) = bundle.core_reader() {
        sink.clear();
        let _ = reader.take(1 << 20).read_to_end(&mut sink);
    }
});
