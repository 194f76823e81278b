//! Values, read and ready to be shown.

/// Why a value is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The debug information does not say where it is.
    OptimizedOut,
    /// It is at this address, which the core does not hold.
    NotInTheCore(u64),
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// It is not known.
    Missing(Missing),
    /// An integer.
    Integer(i128),
    /// An integer that counts: sizes, addresses of other machines.
    Unsigned(u128),
    /// A floating-point number; `single` has 32 bits.
    Float {
        /// The number.
        value: f64,
        /// Whether it has 32 bits.
        single: bool,
    },
    /// A floating-point number of x87: sign and exponent, significand.
    Extended(u16, u64),
    /// `true` or `false`.
    Bool(bool),
    /// A character.
    Char {
        /// Its code; negative if its type has a sign.
        code: i64,
        /// What C writes before its quotes.
        prefix: &'static str,
        /// Whether it is a byte, perhaps of a longer character.
        byte: bool,
    },
    /// A value of an enumeration.
    Enum {
        /// As the source code names it: an enumerator, or several flags.
        name: Option<String>,
        /// The number behind it.
        number: i128,
    },
    /// A pointer.
    Pointer(Pointer),
    /// A C++ reference and what it refers to.
    Reference {
        /// Its address.
        address: u64,
        /// The value there.
        target: Box<Value>,
    },
    /// A struct, class, union, tuple or variant of an enum.
    Record(Record),
    /// An array.
    Array(Array),
    /// Text: an array of characters, a string object.
    Text(Text),
    /// A container of a standard library.
    Container(Container),
    /// A word in place of a value: `<incomplete type>`, `<synthetic pointer>`.
    Word(&'static str),
    /// In words: a complex number, an object of an interpreted language.
    Described(String),
    /// There was no time or no room to read it.
    Omitted,
}

/// A pointer.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointer {
    /// Where it points.
    pub address: u64,
    /// The function or variable there, and how far into it.
    pub symbol: Option<(String, u64)>,
    /// The text there, if it points to characters.
    pub text: Option<Result<Text, Missing>>,
}

/// Members and how they look.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Rust: the type's name, which is part of how values are written.
    pub name: Option<String>,
    /// How they are written.
    pub style: Style,
    /// In the order of the declaration.
    pub members: Vec<Member>,
    /// Whether there are more than were read.
    pub more: bool,
}

/// How members are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `{a = 1, b = 2}`.
    C,
    /// `Name {a: 1, b: 2}`.
    Rust,
    /// `Name (1, 2)`.
    RustTuple,
    /// `Enum::Name{a: 1, b: 2}`.
    RustVariant,
    /// `Enum::Name(1, 2)`.
    RustTupleVariant,
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name; `None` if it has none.
    pub name: Option<String>,
    /// What kind of member it is.
    pub kind: MemberKind,
    /// Its value.
    pub value: Value,
}

/// What kind of member it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// Part of each object.
    Plain,
    /// A base class.
    Base,
    /// Shared by all objects.
    Static,
}

/// Elements, as far as they were read.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// What is written before it: the type of a Rust slice.
    pub name: Option<String>,
    /// Each element, and how many times it is repeated.
    pub elements: Vec<(Value, u64)>,
    /// Whether there are more.
    pub more: bool,
    /// Whether it is written as in Rust.
    pub rust: bool,
}

/// Characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Their codes: bytes, or larger units.
    pub codes: Vec<u32>,
    /// Whether the codes are bytes.
    pub bytes: bool,
    /// What C writes before the quotes.
    pub prefix: &'static str,
    /// Whether there are more.
    pub more: bool,
}

/// A container of a standard library.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// `std::vector`, `Option`.
    pub name: String,
    /// How many elements it has, if it is not a single value.
    pub length: Option<u64>,
    /// The first elements. Maps have keys.
    pub elements: Vec<(Option<Value>, Value)>,
    /// Whether its elements follow without braces: smart pointers, `Option`.
    pub single: bool,
}

impl Value {
    /// Whether it has members or elements: it takes more room than the line of a frame has.
    #[must_use]
    pub fn is_aggregate(&self) -> bool {
        match self {
            Self::Record(_) | Self::Array(_) => true,
            Self::Reference { target, .. } => target.is_aggregate(),
            Self::Container(container) => {
                let held = container.elements.first();
                !container.single || held.is_some_and(|(_, value)| value.is_aggregate())
            }
            _ => false,
        }
    }
}
