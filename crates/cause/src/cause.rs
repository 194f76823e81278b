//! What went wrong, with evidence.

use cdh_elfcore::Avma;
use serde::{Deserialize, Serialize};

use crate::words;

/// Most facts of a cause.
pub(crate) const FACTS: usize = 5;

/// Why a process crashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cause {
    /// What kind of fault it was.
    pub class: Class,
    /// One sentence, without a line break.
    pub sentence: String,
    /// What the sentence rests on: a maximum of five.
    pub facts: Vec<Fact>,
}

/// One observation in the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fact {
    /// In words.
    pub text: String,
    /// Where it can be checked.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// Where a fact was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evidence {
    /// Address in the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Avma>,
    /// Name of a register of the crashing thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub register: Option<String>,
    /// An instruction, disassembled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// `file:line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// Access through a null pointer, or at an offset from one.
    NullPointer,
    /// Access to an address where nothing is mapped.
    BadPointer,
    /// Access to an address that the processor can never use.
    NonCanonicalPointer,
    /// Access through a pointer that the allocator wrote into a freed block.
    UseAfterFree,
    /// A block was freed twice.
    DoubleFree,
    /// An address was freed that is not a block.
    InvalidFree,
    /// The allocator found its own data overwritten.
    HeapCorruption,
    /// The stack protector found its guard value overwritten.
    StackSmashing,
    /// A checked C library function refused to write past the end of a buffer.
    BufferOverflow,
    /// The stack was full.
    StackOverflow,
    /// Call through a null function pointer.
    NullCall,
    /// Call of an address that is not code.
    BadCall,
    /// Return to an address that is not code.
    BadReturn,
    /// Execution reached an address that is not code, and it is unknown from where.
    BadJump,
    /// Call of a pure virtual function.
    PureVirtualCall,
    /// Write to memory that is mapped without write permission.
    ReadOnlyMemory,
    /// Access to memory that is mapped without any permission, such as a guard page.
    NoAccessMemory,
    /// Access to memory that its protection key forbids.
    ProtectionKey,
    /// A mapped file has no data at the address.
    MappedFile,
    /// No huge page was free.
    HugePages,
    /// The hardware reported a memory error.
    HardwareMemory,
    /// Integer division by zero.
    DivisionByZero,
    /// The quotient does not fit, as in `INT_MIN / -1`.
    DivisionOverflow,
    /// A floating-point exception that the program had enabled.
    FloatingPoint,
    /// An instruction needs an aligned address.
    UnalignedAccess,
    /// Not an instruction of this processor.
    IllegalInstruction,
    /// An instruction that the processor does not have.
    MissingCpuFeature,
    /// An instruction that only the kernel may use.
    PrivilegedInstruction,
    /// A trap that the compiler or the program placed there.
    Trap,
    /// A breakpoint.
    Breakpoint,
    /// A failed assertion.
    Assertion,
    /// A check in a library or the language's runtime failed.
    RuntimeCheck,
    /// A sanitizer reported an error.
    Sanitizer,
    /// A C++ exception that nothing caught.
    UncaughtException,
    /// A Rust panic.
    RustPanic,
    /// An error that the language's runtime reported: Go, Python.
    RuntimeError,
    /// The program called `abort`.
    Abort,
    /// seccomp refused a system call.
    Seccomp,
    /// Another process sent the signal.
    SentByProcess,
    /// The process sent the signal to itself.
    Raised,
    /// A resource limit was reached.
    ResourceLimit,
    /// A timer expired.
    Timer,
    /// No more than the signal is known.
    Unknown,
}

impl Cause {
    pub(crate) fn new(class: Class, sentence: impl Into<String>) -> Self {
        let sentence = words::on_one_line(&sentence.into());
        let mut letters = sentence.chars();
        let sentence = match letters.next() {
            Some(first) => first.to_uppercase().chain(letters).collect(),
            None => sentence,
        };
        Self {
            class,
            sentence,
            facts: Vec::new(),
        }
    }

    /// Whether more than the signal is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.class != Class::Unknown
    }

    #[must_use]
    pub(crate) fn with(mut self, fact: impl Into<Option<Fact>>) -> Self {
        if let Some(fact) = fact.into()
            && self.facts.len() < FACTS
            && !self.facts.contains(&fact)
        {
            self.facts.push(fact);
        }
        self
    }

    #[must_use]
    pub(crate) fn with_all(self, facts: impl IntoIterator<Item = Fact>) -> Self {
        facts.into_iter().fold(self, Self::with)
    }
}

impl Fact {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: words::on_one_line(&text.into()),
            evidence: Evidence::default(),
        }
    }

    pub(crate) fn at(mut self, address: u64) -> Self {
        self.evidence.address = Some(Avma(address));
        self
    }

    pub(crate) fn register(mut self, name: impl Into<String>) -> Self {
        self.evidence.register = Some(name.into());
        self
    }

    pub(crate) fn instruction(mut self, text: impl Into<String>) -> Self {
        self.evidence.instruction = Some(text.into());
        self
    }

    pub(crate) fn location(mut self, place: Option<String>) -> Self {
        self.evidence.location = place;
        self
    }
}
