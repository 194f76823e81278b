//! Last words of a Go program: its panics, the fatal error of the runtime, the signal that became a panic.

use std::borrow::Cow;

use super::goroutine::{Goroutine, Machine};
use super::layout::{Layout, minor};
use super::program::{Program, varint};
use crate::Message;

/// Panics of one goroutine that are reported.
const PANICS: usize = 64;
/// Longest text of a panic, and longest name of a type.
const TEXT: u64 = 64 << 10;
const TYPE_NAME: u64 = 1024;
/// Size of the circular buffer of what the runtime printed before it crashed (`runtime/print.go`).
const BACKLOG: usize = 512;
const FATAL: &[u8] = b"fatal error: ";
/// Flags of a type: the name begins with a star that does not belong to it.
const EXTRA_STAR: u8 = 2;
const KIND: u8 = 31;

/// What ended the program, in the order in which it happened.
pub(super) fn messages(
    program: &Program<'_>,
    layout: &Layout,
    goroutine: Option<&Goroutine>,
    machine: Option<&Machine>,
) -> Vec<Message> {
    let mut messages = Vec::new();
    // A program that did not die of its panic may be about to recover it.
    let is_dying = machine.is_some_and(|machine| machine.dying != 0);
    if let Some(goroutine) = goroutine.filter(|_| is_dying) {
        messages = panics(program, layout, goroutine);
    }
    if machine.is_some_and(|machine| machine.throwing != 0 || machine.dying != 0) {
        let is_thrown = machine.is_some_and(|machine| machine.throwing != 0);
        let text = fatal_error(program).filter(|_| is_thrown);
        messages.extend(text.map(|text| Message {
            kind: Cow::Borrowed("fatal error"),
            text,
            ..Message::default()
        }));
        messages.extend(goroutine.and_then(signal));
    }
    for message in &mut messages {
        message.task = goroutine.map(|one| one.id);
    }
    messages
}

/// The chain of panics, the first one first.
fn panics(program: &Program<'_>, layout: &Layout, goroutine: &Goroutine) -> Vec<Message> {
    let mut found = Vec::new();
    let mut at = goroutine.panic;
    let mut seen = Vec::new();
    let flag = |at: u64, name: &str| {
        let field = layout.at(name).and_then(|offset| at.checked_add(offset));
        field.and_then(|field| program.process.u8(field)) == Some(1)
    };
    while at != 0 && found.len() < PANICS && !seen.contains(&at) {
        seen.push(at);
        let argument = layout
            .at("_panic.arg")
            .and_then(|offset| at.checked_add(offset));
        let value = argument.and_then(|argument| value(program, layout, argument));
        let note = match (flag(at, "_panic.recovered"), flag(at, "_panic.repanicked")) {
            (_, true) => Some("recovered, repanicked"),
            (true, _) => Some("recovered"),
            _ => None,
        };
        // The runtime prints a value once that a deferred function recovered and panicked with again.
        if flag(at, "_panic.repanicked") {
            found.pop();
        }
        if !flag(at, "_panic.goexit") {
            let (text, type_name) = value.unwrap_or_else(|| ("(not in the core)".to_owned(), None));
            found.push(Message {
                kind: Cow::Borrowed("panic"),
                text,
                type_name,
                note: note.map(Cow::Borrowed),
                ..Message::default()
            });
        }
        let link = layout.at("_panic.link");
        at = link
            .and_then(|link| program.process.field(at, link))
            .unwrap_or(0);
    }
    found.reverse();
    found
}

/// What the runtime prints of an interface value, and the name of its type. Errors and values with a `String`
/// method were replaced by their texts before.
fn value(program: &Program<'_>, layout: &Layout, at: u64) -> Option<(String, Option<String>)> {
    let process = program.process;
    let (kind_at, data) = (process.u64(at)?, process.u64(at.checked_add(8)?)?);
    if kind_at == 0 {
        return Some(("nil".to_owned(), None));
    }
    // `size, ptrdata, hash u32, tflag u8, align, fieldAlign, kind u8` (`internal/abi/type.go`).
    let kind = process.u8(kind_at.checked_add(23)?)? & KIND;
    let name = type_name(program, layout, kind_at);
    let signed = |width: u32| {
        let bytes = process.bytes(data, usize::try_from(width).ok()?)?;
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        let unused = 64_u32.checked_sub(width.checked_mul(8)?)?;
        let value = i64::from_le_bytes(word);
        Some(value.checked_shl(unused)?.checked_shr(unused)?.to_string())
    };
    let unsigned = |width: usize| {
        let bytes = process.bytes(data, width)?;
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(u64::from_le_bytes(word).to_string())
    };
    let is_short = minor(&program.version).is_some_and(|minor| minor >= SHORT_FLOATS);
    let half = |at: u64| Some(f32::from_bits(process.u32(at)?));
    let double = |at: u64| Some(f64::from_bits(process.u64(at)?));
    let float = |value: f64, shortest: String| match is_short {
        true => general(&shortest),
        false => long_float(value),
    };
    let half_text = |at: u64| half(at).map(|value| float(value.into(), format!("{value:e}")));
    let double_text = |at: u64| double(at).map(|value| float(value, format!("{value:e}")));
    let complex = |first: Option<String>, second: Option<String>| {
        let (first, second) = (first?, second?);
        let sign = if second.starts_with(['+', '-']) {
            ""
        } else {
            "+"
        };
        Some(format!("({first}{sign}{second}i)"))
    };
    let text = match kind {
        1 => Some(
            if process.u8(data)? == 0 {
                "false"
            } else {
                "true"
            }
            .to_owned(),
        ),
        2 | 6 => signed(8),
        3 => signed(1),
        4 => signed(2),
        5 => signed(4),
        7 | 11 | 12 => unsigned(8),
        8 => unsigned(1),
        9 => unsigned(2),
        10 => unsigned(4),
        13 => half_text(data),
        14 => double_text(data),
        15 => complex(half_text(data), half_text(data.checked_add(4)?)),
        16 => complex(double_text(data), double_text(data.checked_add(8)?)),
        24 => program.text(data, TEXT),
        _ => {
            let shown = name.clone().unwrap_or_else(|| "unknown type".to_owned());
            return Some((format!("({shown}) {data:#x}"), name));
        }
    };
    let text = text?;
    // A type with a name of its own is printed as a conversion.
    let text = match &name {
        Some(name) if name.contains('.') => match kind {
            24 => format!("{name}(\"{text}\")"),
            15 | 16 => format!("{name}{text}"),
            _ => format!("{name}({text})"),
        },
        _ => text,
    };
    Some((text, name))
}

/// The first version that prints the shortest text of a float.
const SHORT_FLOATS: u32 = 26;

/// `+1.500000e+000`.
fn long_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:+.6e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let number = exponent.trim_start_matches('-');
    let sign = if exponent.starts_with('-') { '-' } else { '+' };
    format!("{digits}e{sign}{number:0>3}")
}

/// As Go's verb `%g` with the shortest digits, from a text such as `1.5e0`.
fn general(shortest: &str) -> String {
    let Some((digits, exponent)) = shortest.split_once('e') else {
        return match shortest {
            "inf" => "+Inf".to_owned(),
            "-inf" => "-Inf".to_owned(),
            other => other.to_owned(),
        };
    };
    let power: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&power)
        && let Ok(value) = shortest.parse::<f64>()
    {
        return value.to_string();
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:0>2}", power.unsigned_abs())
}

/// The name of a type, with its package.
fn type_name(program: &Program<'_>, layout: &Layout, at: u64) -> Option<String> {
    let process = program.process;
    let data = program.module_data()?;
    let types = process.field(data, layout.at("moduledata.types")?)?;
    let end = process.field(data, layout.at("moduledata.etypes")?)?;
    // Types that were made at run time have their names elsewhere.
    if at < types || at >= end {
        return None;
    }
    let flags = process.u8(at.checked_add(20)?)?;
    let offset = process.u32(at.checked_add(40)?)?;
    let name = types.checked_add(u64::from(offset))?;
    // Flags, length, letters.
    let head = process.bytes(name.checked_add(1)?, 4)?;
    let (length, rest) = varint(&head)?;
    let start = name.checked_add(5)?.checked_sub(rest.len() as u64)?;
    let text = program.text_at(start, length, TYPE_NAME)?;
    let star = flags & EXTRA_STAR != 0;
    let text = text.strip_prefix('*').filter(|_| star).unwrap_or(&text);
    Some(text.to_owned())
}

/// The text of the last fatal error in what the runtime printed.
fn fatal_error(program: &Program<'_>) -> Option<String> {
    let read = |at: u64| program.process.bytes(at, BACKLOG);
    let fits = |at: u64| {
        let bytes = read(at).unwrap_or_default();
        let mut windows = bytes.windows(FATAL.len());
        windows.any(|window| window == FATAL)
    };
    let functions = ["runtime.recordForPanic", "runtime.gwrite"];
    let at = program.variable_in("runtime.printBacklog", &functions, fits)?;
    last_fatal_error(&read(at)?)
}

/// In a circular buffer. What follows the line is older, or zero.
fn last_fatal_error(buffer: &[u8]) -> Option<String> {
    let twice: Vec<u8> = buffer.iter().chain(buffer).copied().collect();
    // Each text begins in the first copy.
    let firsts = buffer.len().checked_add(FATAL.len())?.checked_sub(1)?;
    let firsts = twice.get(..firsts.min(twice.len()))?;
    let start = firsts
        .windows(FATAL.len())
        .rposition(|window| window == FATAL)?;
    let text = twice.get(start.checked_add(FATAL.len())?..)?;
    let text = text.get(..text.len().min(buffer.len().saturating_sub(FATAL.len())))?;
    let end = text.iter().position(|byte| *byte == b'\n' || *byte == 0);
    let text = text.get(..end.unwrap_or(text.len()))?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The signal that became a panic, as the runtime prints it.
fn signal(goroutine: &Goroutine) -> Option<Message> {
    let name = match goroutine.signal {
        0 => return None,
        4 => "SIGILL: illegal instruction".to_owned(),
        5 => "SIGTRAP: trace trap".to_owned(),
        6 => "SIGABRT: abort".to_owned(),
        7 => "SIGBUS: bus error".to_owned(),
        8 => "SIGFPE: floating-point exception".to_owned(),
        11 => "SIGSEGV: segmentation violation".to_owned(),
        other => format!("{other:#x}"),
    };
    Some(Message {
        kind: Cow::Borrowed("signal"),
        text: format!(
            "{name} code={:#x} addr={:#x} pc={:#x}",
            goroutine.signal_code, goroutine.signal_address, goroutine.signal_pc
        ),
        ..Message::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_the_runtime_does() {
        let table = [
            (1.5, "+1.500000e+000", "1.5"),
            (-0.25, "-2.500000e-001", "-0.25"),
            (0.0, "+0.000000e+000", "0"),
            (1e100, "+1.000000e+100", "1e+100"),
            (1_234_567.0, "+1.234567e+006", "1.234567e+06"),
            (0.000_01, "+1.000000e-005", "1e-05"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NAN, "NaN", "NaN"),
        ];
        for (value, long, short) in table {
            assert_eq!(long_float(value), long);
            assert_eq!(general(&format!("{value:e}")), short);
        }
    }

    #[test]
    fn fatal_error_is_read_across_the_end_of_the_buffer() {
        let mut buffer = vec![0_u8; 512];
        let text = b"fatal error: all goroutines are asleep - deadlock!\n";
        for (index, byte) in text.iter().enumerate() {
            buffer[(490 + index) % 512] = *byte;
        }
        let expected = Some("all goroutines are asleep - deadlock!".to_owned());
        assert_eq!(last_fatal_error(&buffer), expected);
        assert_eq!(last_fatal_error(&[0; 512]), None);
        assert_eq!(last_fatal_error(b"fatal error: "), Some(String::new()));
        assert_eq!(last_fatal_error(&[]), None);
    }
}
