//! What naming may ask for while it works: files that only a unit of DWARF knows of, and what was
//! remembered from earlier runs. The caller does the I/O; everything it hands in is checked here.

use crate::StoredStack;

/// Bytes and what keeps them alive: a buffer, a mapped file.
pub type Bytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// The caller's side. Every answer may be `None`: then frames have less to say, or take longer.
pub trait Surroundings: Sync {
    /// The `.dwo` file `name` (hostile bytes, relative to `directory`) that a unit of the module at this
    /// index keeps its debug information in.
    fn split_unit(&self, module: usize, directory: &[u8], name: &[u8]) -> Option<Bytes> {
        let _ = (module, directory, name);
        None
    }

    /// The `.dwp` file that holds the split units of the module at this index.
    fn split_package(&self, module: usize) -> Option<Bytes> {
        let _ = module;
        None
    }

    /// The stacks that were unwound at the crash: for those that end early here.
    fn stored_stacks(&self) -> Vec<StoredStack> {
        Vec::new()
    }

    /// What [`Self::remember`] was given under this name, in this run or an earlier one. Names consist of
    /// letters, digits, `-` and `.`.
    fn remembered(&self, name: &str) -> Option<Bytes> {
        let _ = name;
        None
    }

    /// Keeps `bytes` for later runs, or not: it is a cache.
    fn remember(&self, name: &str, bytes: &[u8]) {
        let _ = (name, bytes);
    }
}

/// No surroundings: nothing is found and nothing remembered.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Surroundings for Alone {}
