//! The dump's format: what is in a bundle, how a spool entry is written, how either is read.
//!
//! A dump grows in an [`EntryDir`] on the node (one file per future bundle entry), is streamed as a
//! zip by [`BundleWriter`] (a pure function of the entry's files) and is read by [`BundleReader`],
//! which also takes the zips of IBM's core-dump-handler and what is left of a zip that was cut.
//!
//! The invariant: the manifest is the commit record. It is written last everywhere, and an entry
//! or a bundle without one is not a dump yet. Names that came from outside are data: nothing in
//! here makes a path out of one.
//!
//! It does not know stores, ELF or the kernel.

mod amend;
mod digest;
mod entry_dir;
mod entry_kind;
mod error;
mod id;
mod image;
mod labels;
mod legacy;
mod manifest;
mod owner;
mod raw_text;
mod reader;
#[cfg(feature = "schema")]
pub mod schema;
mod seekable;
mod stem;
mod verdict;
mod window;
mod writer;
mod zip;

pub use amend::{amend, settle};
pub use digest::{DigestReader, DigestWriter, Digests, Sha256};
pub use entry_dir::{EntryDir, EntryFile, SpoolEntry, SpoolState, list_spool, sweep_spool};
pub use entry_kind::{CoreEncoding, EntryKind, ProcFile};
pub use error::BundleError;
pub use id::{DumpId, IdPrefix, InvalidDumpId, InvalidIdPrefix};
pub use image::{
    ImageRef, is_name as is_image_name, repository as image_repository, tag as image_tag,
};
pub use labels::bounded as bounded_labels;
pub use legacy::{LegacyInfo, LegacyName};
pub use manifest::{
    ContainerLog, CoreRecord, EntryRecord, Gap, ImportRecord, Manifest, ModuleRecord, ProcessFacts,
    SCHEMA, SignalFacts, Workload, WorkloadKind, WorkloadOwner,
};
pub use owner::PodDescription;
pub use raw_text::RawText;
pub use reader::{
    BundleEntry, BundleReader, CoreLayout, CorePiece, EntryCheck, ReadProblem, Verification,
};
pub use seekable::{
    SEEKABLE_FRAME, SeekableError, SeekableReader, SeekableStats, SeekableWriter, frame_compressor,
};
pub use stem::{DEFAULT_STEM, is_safe_stem, render_stem};
pub use verdict::{Cause, Verdict, meaning_of_sender};
pub use window::{SourceReader, Window};
pub use writer::{BundleStream, BundleWriter, EntrySource};
pub use zip::Method;
