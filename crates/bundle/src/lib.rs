//! The format of a dump: the entries of a bundle, and how spool entries and bundles are written and
//! read.
//!
//! On the node, a dump is written to an [`EntryDir`] with one file per bundle entry.
//! [`BundleWriter`] streams the entry as a zip; the zip is a pure function of the entry's files.
//! [`BundleReader`] reads bundles, the zips of IBM's core-dump-handler, and truncated zips.
//!
//! Invariant: the manifest is the commit record. It is always written last, and an entry or bundle
//! without a manifest is not a dump yet. Names from outside are data: this crate never builds a
//! path from one.
//!
//! Does not know stores, ELF or the kernel.

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
