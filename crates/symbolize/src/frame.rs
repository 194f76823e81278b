//! A named frame, and why one has no name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use cdh_elfcore::{Avma, Svma};

use crate::{FrameTrust, LoadedModule, UnwoundFrame, symbol};

/// A line of source code.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Location {
    /// Path as the compiler saw it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The file's MD5 in hexadecimal, as DWARF 5 states it (`DW_LNCT_MD5`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Function {
    /// Name for people.
    pub name: String,
    /// Linkage name, where it has one.
    pub raw: String,
    /// Bytes from its start; absent for inlined calls and for parts that lie before the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Why a frame has no name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The address is in no mapped file: generated code, or a wild jump.
    NoModule,
    /// The module's file was not found.
    ModuleMissing,
    /// The file found is another one.
    ModuleMismatch,
    /// The module's file could not be read.
    Unreadable(String),
    /// The file is there, but not where in memory it was loaded.
    LoadAddressUnknown,
    /// The file holds neither symbols nor debug information.
    NoSymbols,
    /// The file has symbols, but none that covers the address.
    NotInAnyFunction,
}

/// One line of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Frame {
    /// Program counter.
    pub pc: Avma,
    /// Index of the module in the backtrace's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<usize>,
    /// Stack pointer, where it is known: what is below that of the caller belongs to the frame. Of an interpreted
    /// frame, where its runtime keeps it.
    #[serde(skip)]
    pub sp: Option<Avma>,
    /// `pc` as the module's file states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svma: Option<Svma>,
    /// How it was found.
    pub trust: FrameTrust,
    /// What it is called, or why that is unknown: `"function": {…}` or `"reason": …` in JSON.
    /// Frames at the same address share it: a thousand threads wait in the same place.
    #[serde(flatten, with = "function_or_reason")]
    #[cfg_attr(
        feature = "schema",
        schemars(flatten, with = "function_or_reason::Owned")
    )]
    pub function: Result<Arc<Function>, Reason>,
    /// An inlined call: no frame of its own on the stack, same `pc` as the next frame.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inline: bool,
    /// Where in the source.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Location>"))]
    pub location: Option<Arc<Location>>,
    /// A function that left the stack by a tail call; known from the call sites around it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tail_call: bool,
    /// The trampoline that called a signal handler (gdb: `<signal handler called>`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub signal_handler: bool,
    /// Whether `pc` follows a call instruction rather than being the instruction itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_return_address: bool,
    /// A frame of an interpreted language: no frame of its own on the native stack, `pc` is the interpreter's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub interpreted: bool,
    /// The language of an interpreted frame, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Cow<'static, str>>,
}

impl Frame {
    /// The frame of the native stack that this line is for. `None` for a line without one of its own: an inlined or
    /// interpreted call, or a function that left the stack.
    #[must_use]
    pub fn as_unwound(&self) -> Option<UnwoundFrame> {
        let is_native = !self.inline && !self.interpreted && !self.tail_call;
        is_native.then_some(UnwoundFrame {
            pc: self.pc,
            sp: self.sp,
            trust: self.trust,
            module: self.module,
            svma: self.svma,
            is_return_address: self.is_return_address,
            signal_frame: self.signal_handler,
        })
    }
}

/// Frames as they are wherever they are named: one line each, and names only for those in the module with the index
/// `named`, from the symbol tables of the file that was mapped. Debug information and other files do not count.
#[must_use]
pub fn frames_by_tables(
    frames: &[UnwoundFrame],
    modules: &[LoadedModule<'_>],
    named: usize,
) -> Vec<Frame> {
    let address = |frame: &UnwoundFrame| {
        let at = frame.lookup_svma().filter(|_| frame.module == Some(named));
        at.map(|at| at.0)
    };
    let mut addresses: Vec<u64> = frames.iter().filter_map(address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let object = modules.get(named).and_then(|loaded| loaded.object.as_ref());
    let found = object.map(|object| symbol::find(&[object], &addresses));
    let names = addresses.iter().zip(found.into_iter().flatten());
    let function = |name: &[u8]| {
        let raw = String::from_utf8_lossy(name).into_owned();
        Arc::new(Function {
            name: raw.clone(),
            raw,
            offset: None,
        })
    };
    let names: HashMap<u64, Arc<Function>> = names
        .filter_map(|(at, found)| Some((*at, function(found?.name))))
        .collect();
    let line = |frame: &UnwoundFrame| {
        let function = address(frame).and_then(|at| names.get(&at));
        Frame {
            pc: frame.pc,
            module: frame.module,
            sp: frame.sp,
            svma: frame.svma,
            trust: frame.trust,
            function: function.cloned().ok_or(Reason::NotInAnyFunction),
            inline: false,
            location: None,
            tail_call: false,
            signal_handler: frame.signal_frame,
            is_return_address: frame.is_return_address,
            interpreted: false,
            language: None,
        }
    };
    frames.iter().map(line).collect()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde wants
fn is_false(value: &bool) -> bool {
    !value
}

mod shared {
    use std::sync::Arc;

    use super::Location;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option)] // the form that serde wants
    pub(super) fn serialize<S: Serializer>(
        place: &Option<Arc<Location>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        place.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<Location>>, D::Error> {
        Ok(Option::<Location>::deserialize(deserializer)?.map(Arc::new))
    }
}

mod function_or_reason {
    use std::sync::Arc;

    use super::{Function, Reason};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Borrowed<'a> {
        Function(&'a Function),
        Reason(&'a Reason),
    }

    #[derive(Deserialize)]
    #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Owned {
        Function(Function),
        Reason(Reason),
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Result<Arc<Function>, Reason>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Ok(function) => Borrowed::Function(function),
            Err(reason) => Borrowed::Reason(reason),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Result<Arc<Function>, Reason>, D::Error> {
        Ok(match Owned::deserialize(deserializer)? {
            Owned::Function(function) => Ok(Arc::new(function)),
            Owned::Reason(reason) => Err(reason),
        })
    }
}
