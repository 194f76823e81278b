//! Reads the agents' records of crashes without a dump.

use std::io::Read;
use std::ops::ControlFlow;

use anyhow::Result;
use cdh_agent::DropLine;
use cdh_bundle::{SourceReader, Window};
use cdh_store::{Listed, Listing, Store};
use jiff::Timestamp;

use super::store_failure;

/// Begin of the keys.
const DROPS: &str = "drops/";
/// Maximum bytes read of one object.
const LARGEST: u64 = 8 << 20;

/// All lines from `since` on, with a tolerance of a day, in the order of their objects. Lines that no
/// agent wrote are skipped.
///
/// # Errors
/// When the store cannot be listed or read.
pub fn drops(store: &dyn Store, since: Option<Timestamp>) -> Result<Vec<DropLine>> {
    let first = since.map(|since| format!("{DROPS}{}/", since.strftime("%Y-%m-%d")));
    let mut listing = Listing::all(DROPS);
    listing.start_after = first.as_deref();
    let mut objects = Vec::new();
    let visited = store.list(&listing, &mut |listed| {
        if let Listed::Object(object) = listed
            && object.key.as_str().ends_with(".jsonl")
        {
            objects.push(object);
        }
        ControlFlow::Continue(())
    });
    visited.map_err(|error| store_failure(error, "list"))?;
    let mut lines = Vec::new();
    for object in objects {
        let source = store.read_pinned(&object.key, &object.stat());
        let source = source.map_err(|error| store_failure(error, "read"))?;
        let mut text = Vec::new();
        SourceReader::new(Window::new(source, 0, LARGEST)).read_to_end(&mut text)?;
        let found = text.split(|&byte| byte == b'\n');
        lines.extend(found.filter_map(|line| serde_json::from_slice::<DropLine>(line).ok()));
    }
    Ok(lines)
}
