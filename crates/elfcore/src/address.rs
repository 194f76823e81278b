//! Addresses that cannot be mixed up: where a byte is in the process, in the ELF's own view, in a file.

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize,
            serde::Deserialize,
        )]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// This address moved up by `bytes`, or `None` past the end of the address space.
            #[must_use]
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }

            /// Bytes from `other` up to this address, or `None` where `other` lies above it.
            #[must_use]
            pub fn checked_sub(self, other: Self) -> Option<u64> {
                self.0.checked_sub(other.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// Actual virtual memory address: where a byte was in the crashed process.
    Avma
}
address! {
    /// Stated virtual memory address: what the ELF file and its DWARF call the same place.
    Svma
}
address! {
    /// Distance of a byte from the start of a file.
    FileOffset
}
