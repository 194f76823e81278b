//! The name of a function without what differs between builds of the same source: hashes, clones,
//! parameters, template arguments, closures, variants for one kind of CPU.
//!
//! Which suffixes a compiler adds depends on the language. In C, C++, Rust and D no name holds a dot, so
//! that whatever follows one was added. In Go the dot separates package, type and function.

use crate::demangle::demangle;

/// Words that GCC and LLVM append to the name of a C function after a dot, mostly followed by a number.
const CLONES: [&str; 13] = [
    "part",
    "isra",
    "constprop",
    "cold",
    "llvm",
    "lto_priv",
    "localalias",
    "clone",
    "simdclone",
    "resolver",
    "ifunc",
    "default",
    "warm",
];
/// What a function's variants for one kind of CPU are called by. The longest that may follow are numbers
/// (`avx512f`, `sse4_2`, `evex256`).
const CPU: [&str; 19] = [
    "sse", "sse2", "sse3", "ssse3", "sse4", "sse41", "sse42", "avx", "avx2", "avx512", "avx512f",
    "avx512bw", "avx512vl", "evex", "evex256", "evex512", "neon", "sve", "asimd",
];
/// What may stand beside these.
const CPU_DETAILS: [&str; 11] = [
    "unaligned",
    "aligned",
    "erms",
    "rtm",
    "movbe",
    "vzeroupper",
    "no",
    "back",
    "fast",
    "1",
    "2",
];
/// Bytes of `17h`, sixteen digits and `E`.
const RUST_HASH: usize = 20;
/// Where the name of a closure begins, behind the function that it was written in.
const CLOSURES: [&str; 6] = [
    "::{lambda",
    "::$_",
    "::'lambda",
    "::{{",
    "::{closure",
    "::{shim",
];

/// The name of a symbol of a C, C++, Rust or D program.
pub(super) fn of_symbol(raw: &str) -> String {
    of_demangled(&demangle(without_clone(raw)))
}

/// A name that was demangled already.
pub(super) fn of_demangled(name: &str) -> String {
    let name = without_arguments(name);
    let name = without_closure(&name);
    without_cpu(bare(name)).to_owned()
}

/// The name of a function of a Go program.
pub(super) fn of_go(raw: &str) -> String {
    let mut plain = String::with_capacity(raw.len());
    let mut depth = 0_usize;
    // Type arguments: `main.Map[go.shape.int]`.
    for character in raw.chars() {
        match character {
            '[' => depth = depth.saturating_add(1),
            ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    let calling = [".abi0", ".abiinternal", "-fm"];
    let end = calling.iter().find_map(|mark| plain.strip_suffix(mark));
    let plain = end.unwrap_or(&plain);
    let package = plain.rfind('/').map_or(0, |at| at.saturating_add(1));
    let closures = [".func", ".gowrap", ".deferwrap", "-range", ".glob..func"];
    let starts = closures.iter().filter_map(|mark| {
        let at = plain.get(package..)?.find(mark)?.checked_add(package)?;
        let after = plain.get(at.checked_add(mark.len())?..)?;
        after
            .starts_with(|c: char| c.is_ascii_digit())
            .then_some(at)
    });
    match starts.min() {
        Some(at) if at > package => plain.get(..at).unwrap_or(plain).to_owned(),
        _ => plain.to_owned(),
    }
}

/// Without the marks of a clone.
fn without_clone(raw: &str) -> &str {
    // Legacy Rust: the hash ends the name, and dots stand for `::` before it.
    if let Some(hash) = raw.find("17h").filter(|_| raw.starts_with("_ZN"))
        && let Some(end) = hash.checked_add(RUST_HASH)
        && let Some(name) = raw.get(..end).filter(|name| name.ends_with('E'))
    {
        return name;
    }
    if raw.starts_with("_Z") || raw.starts_with("_R") || raw.starts_with("_D") {
        return raw.split('.').next().unwrap_or(raw);
    }
    let mut name = raw;
    while let Some((rest, last)) = name.rsplit_once('.').filter(|(rest, _)| !rest.is_empty()) {
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        let before = rest.rsplit_once('.').map(|(_, before)| before);
        let is_mark = match before {
            _ if is_clone(last) => true,
            // `counter.1234` is a static of a function, `main.init.0` a name of Zig or Nim.
            None => is_number,
            Some(before) => is_number && (is_clone(before) || before.bytes().all(is_digit)),
        };
        if !is_mark {
            break;
        }
        name = rest;
    }
    name
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// Also `target_clones`: `sum.avx2.0`, `sum.arch_haswell`, `sum.default`.
fn is_clone(word: &str) -> bool {
    CLONES.contains(&word) || word.starts_with("arch_") || is_cpu(word)
}

fn is_cpu(word: &str) -> bool {
    CPU.contains(&word) || word.strip_prefix("sse4_").is_some()
}

/// `memmove_avx512_unaligned_erms` is `memmove`, whichever CPU it ran on.
fn without_cpu(name: &str) -> &str {
    let mut rest = name;
    let mut is_variant = false;
    while let Some((start, word)) = rest.rsplit_once('_').filter(|(start, _)| !start.is_empty()) {
        if !is_cpu(word) && !CPU_DETAILS.contains(&word) {
            break;
        }
        is_variant |= is_cpu(word);
        rest = start;
    }
    match is_variant {
        true => rest.trim_end_matches('_'),
        // A CPU without any extension, as glibc names its variants.
        false
            if ["mem", "str", "wcs", "wmem"]
                .iter()
                .any(|start| name.starts_with(start)) =>
        {
            name.strip_suffix("_erms")
                .and_then(|name| name.strip_suffix("_unaligned").or(Some(name)))
                .or_else(|| name.strip_suffix("_generic"))
                .unwrap_or(name)
        }
        false => name,
    }
}

/// Without the marks of names that belong to the language's implementation.
fn bare(name: &str) -> &str {
    let trimmed = name.trim_start_matches('_');
    let trimmed = trimmed.strip_prefix("GI_").unwrap_or(trimmed);
    let trimmed = trimmed.trim_start_matches('_');
    if trimmed.is_empty() { name } else { trimmed }
}

/// The function that a closure was written in: `main::{lambda()#1}::operator()` is part of `main`.
fn without_closure(name: &str) -> &str {
    let start = CLOSURES.iter().filter_map(|mark| name.find(mark)).min();
    let Some(outer) = start.and_then(|start| name.get(..start)) else {
        return name;
    };
    // C++ shows the parameters of the function around it.
    let outer = outer.trim_end_matches(" const");
    let mut depth = 0_usize;
    for (at, character) in outer.char_indices().rev() {
        match character {
            ')' => depth = depth.saturating_add(1),
            '(' if depth == 1 => {
                let named = outer.get(..at).unwrap_or(outer);
                return match named.is_empty() || named.ends_with("::") {
                    true => outer,
                    false => named,
                };
            }
            '(' => depth = depth.saturating_sub(1),
            _ if depth == 0 => return outer,
            _ => {}
        }
    }
    outer
}

/// Removes `<…>` where it holds arguments (`f<T>`, `f::<T>`), not where it is a name of its own
/// (`<T as Trait>::f`, `path::<impl Trait for T>::f`).
pub(super) fn without_arguments(name: &str) -> String {
    let mut plain = String::new();
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, character) in name.char_indices() {
        match character {
            '<' if depth > 0 || starts_arguments(&plain, name.get(at..).unwrap_or_default()) => {
                depth = depth.saturating_add(1);
            }
            // `->` inside of arguments.
            '>' if depth > 0 && previous != '-' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && plain.ends_with("::") {
                    plain.truncate(plain.len().saturating_sub(2));
                }
            }
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
        previous = character;
    }
    plain
}

fn starts_arguments(before: &str, rest: &str) -> bool {
    let after_name = before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    let turbofish = before.ends_with("::") && !rest.starts_with("<impl ");
    (after_name && !before.ends_with("operator")) || turbofish
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_differs_between_builds() {
        let table = [
            ("parse.part.0", "parse"),
            ("parse.isra.0.cold", "parse"),
            ("parse.constprop.0.isra.0", "parse"),
            ("parse.llvm.1234567", "parse"),
            ("parse.lto_priv.0.cold.1", "parse"),
            ("counter.1234", "counter"),
            ("sum.avx2.0", "sum"),
            ("sum.arch_haswell.1", "sum"),
            ("sum.default.2", "sum"),
            ("__GI_raise", "raise"),
            ("__memmove_avx512_unaligned_erms", "memmove"),
            ("__memmove_sse2_unaligned_erms", "memmove"),
            ("__memmove_evex_unaligned_erms", "memmove"),
            ("__memmove_erms", "memmove"),
            ("__strlen_avx2_rtm", "strlen"),
            ("__strcmp_sse4_2", "strcmp"),
            ("handle_no_fast", "handle_no_fast"),
            ("checksum_avx2", "checksum"),
            ("_ZN3app5parseEi.part.0", "app::parse"),
            ("_ZN3app5parseEi.cold", "app::parse"),
            (
                "_ZN3app6server4loop17h0123456789abcdefE.llvm.99",
                "app::server::loop",
            ),
            (
                "_ZN3app5parse28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE",
                "app::parse",
            ),
            ("_ZZN3app5parseEiENKUliE_clEi", "app::parse"),
            ("_ZZ4mainENKUlvE_clEv", "main"),
            ("_ZZ4mainENK3$_0clEv", "main"),
            ("_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo"),
            ("main.parse", "main.parse"),
            ("__", "__"),
        ];
        for (raw, expected) in table {
            assert_eq!(of_symbol(raw), expected, "{raw}");
        }
    }

    #[test]
    fn go_names_keep_package_type_and_function() {
        let table = [
            ("main.main", "main.main"),
            ("main.process", "main.process"),
            ("main.part", "main.part"),
            ("main.clone.func2", "main.clone"),
            ("main.init.0", "main.init.0"),
            ("main.main.func1.2", "main.main"),
            ("main.main.gowrap1", "main.main"),
            ("main.(*Server).serve-fm", "main.(*Server).serve"),
            ("main.(*Stack[go.shape.int]).Push", "main.(*Stack).Push"),
            ("main.Map[go.shape.int_0]", "main.Map"),
            (
                "github.com/a/b.func.x/pkg.Run.func1",
                "github.com/a/b.func.x/pkg.Run",
            ),
            ("main.function1", "main.function1"),
        ];
        for (raw, expected) in table {
            assert_eq!(of_go(raw), expected, "{raw}");
        }
    }

    #[test]
    fn arguments_go_and_operators_stay() {
        let table = [
            (
                "std::vector<int, std::allocator<int> >::push_back",
                "std::vector::push_back",
            ),
            (
                "<app::Loop as core::ops::Drop>::drop",
                "<app::Loop as core::ops::Drop>::drop",
            ),
            ("app::run::<u8>", "app::run"),
            ("operator<", "operator<"),
            ("Foo::operator->", "Foo::operator->"),
            ("Foo::operator()", "Foo::operator()"),
        ];
        for (name, expected) in table {
            assert_eq!(of_demangled(name), expected, "{name}");
        }
    }
}
