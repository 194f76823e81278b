//! A large Rust program with full debug information, as services of some hundred crates are.
//!
//! Its types are made up; what the standard library's collections and iterators make of each of them is
//! not, and is nearly all of it: almost 2 MiB for each, not optimized.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build;

/// Types in one crate.
const TYPES: usize = 32;
/// What one type adds to the program, in MiB, as rustc 1.95 makes it.
const MIB_OF_A_TYPE: f64 = 1.75;

const TYPE: &str = r#"
pub mod mNUMBER {
    use std::collections::*;
    #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
    pub struct RecordNUMBER { pub id: u64, pub next: Option<u32>, pub name: String, pub parts: Vec<u16> }
    #[inline(never)]
    pub fn work(n: u64, crash: *mut u8) -> usize {
        type Record = RecordNUMBER;
        let make = |id| Record { id, next: Some(id as u32), name: format!("{id}"), parts: vec![1, 2] };
        let all: Vec<Record> = (0..n).map(make).collect();
        let map: HashMap<Record, Vec<Record>> = all.iter().map(|r| (r.clone(), vec![r.clone()])).collect();
        let tree: BTreeMap<Record, HashSet<Record>> =
            all.iter().cloned().map(|r| (r.clone(), [r].into_iter().collect())).collect();
        let set: BTreeSet<Record> = tree.keys().cloned().collect();
        let queue: VecDeque<Record> = set.iter().rev().cloned().filter(|r| r.id > 1).collect();
        let mut heap: BinaryHeap<Record> = queue.into_iter().collect();
        let mut sorted: Vec<Record> = heap.drain().collect();
        sorted.sort();
        sorted.sort_unstable_by_key(|r| r.next);
        sorted.dedup();
        let shared = std::sync::Arc::new(std::sync::Mutex::new(sorted.clone()));
        let pairs = sorted.chunks(3).flat_map(|c| c.iter()).zip(all.iter().skip(1));
        let sum: u64 = pairs.map(|(x, y)| x.id ^ y.id).fold(0, |sum, id| {
            if crash as usize == 8 { unsafe { crash.write_volatile(1) } }
            sum.wrapping_add(id)
        });
        let groups = all.iter().fold(BTreeMap::new(), |mut groups: BTreeMap<_, Vec<&Record>>, r| {
            groups.entry(r.next).or_insert_with(Vec::new).push(r);
            groups
        });
        let length: usize = shared.lock().unwrap().iter().map(|r| r.name.len()).sum();
        length + map.len() + tree.len() + groups.len() + sum as usize + format!("{all:?}").len()
    }
}
"#;

/// Builds a program of about `mib` MiB as `program` in `directory`. Started, it crashes in its last crate.
pub(super) fn build(directory: &Path, mib: usize) -> Result<()> {
    let crates = (mib as f64 / MIB_OF_A_TYPE / TYPES as f64).ceil().max(1.0) as usize;
    let mut main = String::from("fn main() {\n    let mut sum = 0;\n");
    let rustc = |source: &str, out: &str| {
        let mut rustc = Command::new("rustc");
        rustc.current_dir(directory);
        rustc.args(["--edition", "2021", "--cap-lints", "allow"]);
        rustc.args(["-g", "-C", "opt-level=0", "-L", ".", "-o", out, source]);
        rustc
    };
    for number in 0..crates {
        let mut source = String::new();
        for kind in 0..TYPES {
            source.push_str(&TYPE.replace("NUMBER", &kind.to_string()));
            // The last function of the last crate gets an address without a mapping.
            let crash = if (number, kind) == (crates - 1, TYPES - 1) {
                8
            } else {
                0
            };
            writeln!(
                main,
                "    sum += part{number}::m{kind}::work(9, {crash} as *mut u8);"
            )?;
        }
        let name = format!("part{number}.rs");
        fs::write(directory.join(&name), source)?;
        let mut library = rustc(&name, &format!("libpart{number}.rlib"));
        build::succeed(library.args(["--crate-type", "rlib", "-C", "codegen-units=16"]))?;
    }
    main.push_str("    println!(\"{sum}\");\n}\n");
    fs::write(directory.join("main.rs"), main)?;
    let mut program = rustc("main.rs", "program");
    for number in 0..crates {
        program.args(["--extern", &format!("part{number}=libpart{number}.rlib")]);
    }
    build::succeed(&mut program)?;
    for number in 0..crates {
        fs::remove_file(directory.join(format!("libpart{number}.rlib")))?;
    }
    Ok(())
}
