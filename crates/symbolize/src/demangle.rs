//! Linkage names to names for people: Rust (both schemes), C++ and D. Swift names stay mangled.
//!
//! Mangled names come from files; a short one can describe a very long one, so output is bounded.

use std::fmt::{self, Write};

/// Longest name that is written out; longer ones stay mangled.
const NAME_LIMIT: usize = 16 << 10;

/// The name as a person would write it, without parameters and return type; other names unchanged.
pub(crate) fn demangle(raw: &str) -> String {
    let rust = rustc_demangle::try_demangle(raw).ok().and_then(|name| {
        let mut out = Bounded(String::new());
        // The alternate form leaves out the hash.
        write!(out, "{name:#}").ok().map(|()| out.0)
    });
    rust.or_else(|| cpp(raw))
        .or_else(|| d(raw))
        .unwrap_or_else(|| raw.to_owned())
}

/// D: `_D`, then each part of the name with its length before it, then its type (D ABI, "Name Mangling").
/// Names with back references or template arguments stay as they are.
fn d(raw: &str) -> Option<String> {
    if raw == "_Dmain" {
        return Some("D main".to_owned());
    }
    let mut rest = raw.strip_prefix("_D")?;
    let mut parts = Vec::new();
    while rest.starts_with(|first: char| first.is_ascii_digit()) {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (length, after) = rest.split_at_checked(digits)?;
        let (part, after) = after.split_at_checked(length.parse().ok()?)?;
        if part.is_empty() || part.starts_with("__T") || part.starts_with("__U") {
            return None;
        }
        parts.push(part);
        rest = after;
    }
    (!parts.is_empty() && !rest.is_empty()).then(|| parts.join("."))
}

/// As `demangle`; C++ functions with their parameters.
#[must_use]
pub fn demangle_with_parameters(raw: &str) -> String {
    // The older names of Rust look like those of C++.
    if rustc_demangle::try_demangle(raw).is_ok() {
        return demangle(raw);
    }
    let options = cpp_demangle::DemangleOptions::new().no_return_type();
    let name = cpp_with(raw, &options).unwrap_or_else(|| demangle(raw));
    // What the compiler makes for a class: in the words of binutils and gdb.
    let special = |name: &str| {
        let (kind, of) = name
            .strip_prefix('{')?
            .strip_suffix(")}")?
            .split_once('(')?;
        let kind = match kind {
            "vtable" => "vtable for",
            "vtt" => "VTT for",
            "typeinfo" => "typeinfo for",
            "typeinfo name" => "typeinfo name for",
            _ => return None,
        };
        Some(format!("{kind} {of}"))
    };
    special(&name).unwrap_or(name)
}

fn cpp(raw: &str) -> Option<String> {
    let options = cpp_demangle::DemangleOptions::new()
        .no_params()
        .no_return_type();
    let mut name = cpp_with(raw, &options)?;
    // `value &` of `value() &`: what a member function says of its object. Names of conversions end in a type.
    if !name.contains("operator ") {
        let plain = name.trim_end_matches('&').trim_end().len();
        name.truncate(plain);
    }
    Some(name)
}

fn cpp_with(raw: &str, options: &cpp_demangle::DemangleOptions) -> Option<String> {
    if !raw.starts_with("_Z") || raw.len() > NAME_LIMIT {
        return None;
    }
    let symbol = cpp_demangle::Symbol::new(raw).ok()?;
    let mut out = Bounded(String::new());
    symbol
        .structured_demangle(&mut out, options)
        .ok()
        .map(|()| out.0)
}

struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.0.len().saturating_add(part.len()) > NAME_LIMIT {
            return Err(fmt::Error);
        }
        self.0.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_every_scheme_are_written_for_people() {
        let table = [
            ("main", "main"),
            (
                "_ZN3app6server4loop17h0123456789abcdefE",
                "app::server::loop",
            ),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back",
            ),
            ("_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo"),
            ("_ZNKRSt8optionalIiE5valueEv", "std::optional<int>::value"),
            ("_ZNOSt8optionalIiE5valueEv", "std::optional<int>::value"),
            ("_ZN3FoocvRiEv", "Foo::operator int&"),
            ("_Z", "_Z"),
            ("_D3app6server4loopFiZv", "app.server.loop"),
            ("_Dmain", "D main"),
            ("_D3app", "_D3app"),
            ("_D9app", "_D9app"),
        ];
        for (raw, name) in table {
            assert_eq!(demangle(raw), name);
        }
        let table = [
            ("_ZTVN4shop7DerivedE", "vtable for shop::Derived"),
            ("_ZN4shop5twiceEi", "shop::twice(int)"),
            ("main", "main"),
        ];
        for (raw, name) in table {
            assert_eq!(demangle_with_parameters(raw), name);
        }
    }

    #[test]
    fn name_that_grows_without_end_stays_mangled() {
        // Each substitution doubles the name.
        let raw = format!("_Z1fI1aE{}", "St4pairIS0_S0_E".repeat(64));
        assert!(demangle(&raw).len() <= NAME_LIMIT);
    }

    proptest! {
        #[test]
        fn hostile_names_never_panic(tail in "[A-Za-z0-9_.$]{0,200}") {
            demangle(&format!("_Z{tail}"));
            demangle(&format!("_R{tail}"));
            demangle(&format!("_D{tail}"));
            demangle(&tail);
        }
    }
}
