//! Values as text, in the form that gdb prints them.

use std::fmt::{self, Display, Write};

use crate::reader::{ELEMENTS, REPEATS};
use crate::value::{
    Array, Container, Member, MemberKind, Missing, Pointer, Record, Style, Text, Value,
};

impl Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OptimizedOut => "<optimized out>",
            Self::NotInTheCore(_) => "<not in the core>",
        })
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => why.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Float { value, single } => f.write_str(&float(*value, *single)),
            Self::Extended(exponent, significand) => {
                f.write_str(&extended(*exponent, *significand))
            }
            Self::Bool(value) => value.fmt(f),
            Self::Char { code, prefix, byte } => character(f, *code, prefix, *byte),
            Self::Enum {
                name: Some(name), ..
            } => f.write_str(name),
            Self::Enum { number, .. } => number.fmt(f),
            Self::Pointer(pointer) => pointer.fmt(f),
            Self::Reference { address, target } if **target == Self::Omitted => {
                write!(f, "@{address:#x}")
            }
            Self::Reference { address, target } => write!(f, "@{address:#x}: {target}"),
            Self::Record(record) => record.fmt(f),
            Self::Array(array) => array.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Container(container) => container.fmt(f),
            Self::Word(word) => f.write_str(word),
            Self::Described(text) => f.write_str(text),
            Self::Omitted => f.write_str("..."),
        }
    }
}

impl Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)?;
        match &self.symbol {
            Some((name, 0)) => write!(f, " <{name}>")?,
            Some((name, offset)) => write!(f, " <{name}+{offset}>")?,
            None => {}
        }
        match &self.text {
            Some(Ok(text)) => write!(f, " {text}"),
            Some(Err(why)) => write!(f, " {why}"),
            None => Ok(()),
        }
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name.as_ref().filter(|_| !self.is_tuple()) {
            f.write_str(name)?;
        }
        if self.members.is_empty() {
            return match (&self.name, self.style) {
                (Some(_), _) => Ok(()),
                (None, _) => f.write_str("{<No data fields>}"),
            };
        }
        let (open, close, is) = match self.style {
            Style::C => ("{", "}", " = "),
            Style::Rust => (" {", "}", ": "),
            Style::RustVariant => ("{", "}", ": "),
            Style::RustTuple if self.is_tuple() => ("(", ")", ""),
            Style::RustTuple => (" (", ")", ""),
            Style::RustTupleVariant => ("(", ")", ""),
        };
        f.write_str(open)?;
        for (number, member) in self.members.iter().enumerate() {
            if number > 0 {
                f.write_str(", ")?;
            }
            let Member { name, kind, value } = member;
            match (kind, name) {
                _ if is.is_empty() => {}
                (MemberKind::Base, Some(name)) => write!(f, "<{name}>{is}")?,
                (MemberKind::Static, Some(name)) => write!(f, "static {name}{is}")?,
                (MemberKind::Plain, Some(name)) => write!(f, "{name}{is}")?,
                (_, None) => {}
            }
            value.fmt(f)?;
        }
        // Of a class that only has base classes, gdb says so.
        let is_base = |member: &Member| member.kind == MemberKind::Base;
        if self.style == Style::C && self.members.iter().all(is_base) {
            f.write_str(", <No data fields>")?;
        }
        if self.more {
            f.write_str("...")?;
        }
        f.write_str(close)
    }
}

impl Record {
    /// Whether it is a tuple of Rust, whose name is its types.
    fn is_tuple(&self) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        self.style == Style::RustTuple && name.starts_with('(')
    }
}

impl Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.rust { ("[", "]") } else { ("{", "}") };
        if let Some(name) = &self.name {
            write!(f, "{name} ")?;
        }
        f.write_str(open)?;
        for (number, (value, repeats)) in self.elements.iter().enumerate() {
            if number > 0 {
                f.write_str(", ")?;
            }
            value.fmt(f)?;
            if *repeats > REPEATS {
                write!(f, " <repeats {repeats} times>")?;
            }
        }
        if self.more {
            f.write_str("...")?;
        }
        f.write_str(close)
    }
}

impl Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.single {
            f.write_str(&self.name)?;
            return match self.elements.first() {
                Some((_, value)) => write!(f, "({value})"),
                None if self.name.starts_with("std::") => f.write_str("()"),
                None => Ok(()),
            };
        }
        match (self.name.as_str(), self.length) {
            ("", Some(length)) => write!(f, "({length}) ")?,
            (name, Some(length)) => write!(f, "{name}({length}) ")?,
            (name, None) => write!(f, "{name} ")?,
        }
        let length = usize::try_from(self.length.unwrap_or(0)).unwrap_or(usize::MAX);
        if self.elements.is_empty() {
            return f.write_str(if length == 0 { "{}" } else { "{...}" });
        }
        f.write_str("{")?;
        // Equal elements in a row are many more than different ones.
        let mut first = true;
        for run in self.elements.chunk_by(|a, b| a == b) {
            let repeats = run.len() as u64;
            let shown = if repeats > REPEATS { 1 } else { run.len() };
            for (key, value) in run.iter().take(shown) {
                if !first {
                    f.write_str(", ")?;
                }
                first = false;
                if let Some(key) = key {
                    write!(f, "[{key}] = ")?;
                }
                value.fmt(f)?;
            }
            if repeats > REPEATS {
                write!(f, " <repeats {repeats} times>")?;
            }
        }
        if self.elements.len() < length {
            f.write_str("...")?;
        }
        f.write_str("}")
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.codes.is_empty() {
            return write!(f, "{}\"\"", self.prefix);
        }
        let characters = self.characters();
        let mut is_open = false;
        let mut first = true;
        let mut shown = 0_usize;
        let mut cut = self.more;
        for run in characters.chunk_by(|a, b| a == b) {
            if shown >= ELEMENTS {
                cut = true;
                break;
            }
            let Some(one) = run.first() else { continue };
            if run.len() as u64 > REPEATS {
                if is_open {
                    f.write_str("\"")?;
                    is_open = false;
                }
                if !first {
                    f.write_str(", ")?;
                }
                let mut text = String::new();
                escaped(&mut text, *one, '\'')?;
                write!(f, "{}'{text}' <repeats {} times>", self.prefix, run.len())?;
                shown = shown.saturating_add(usize::try_from(REPEATS).unwrap_or(ELEMENTS));
            } else {
                if !is_open {
                    if !first {
                        f.write_str(", ")?;
                    }
                    f.write_str(self.prefix)?;
                    f.write_str("\"")?;
                    is_open = true;
                }
                let mut text = String::new();
                for one in run {
                    escaped(&mut text, *one, '"')?;
                }
                f.write_str(&text)?;
                shown = shown.saturating_add(run.len());
            }
            first = false;
        }
        if is_open {
            f.write_str("\"")?;
        }
        if cut {
            f.write_str("...")?;
        }
        Ok(())
    }
}

impl Text {
    /// Letters, and what is no letter.
    fn characters(&self) -> Vec<Result<char, u32>> {
        if !self.bytes {
            let letter = |code: &u32| char::from_u32(*code).ok_or(*code);
            return self.codes.iter().map(letter).collect();
        }
        let bytes: Vec<u8> = self.codes.iter().map(|code| *code as u8).collect();
        let mut characters = Vec::new();
        for chunk in bytes.utf8_chunks() {
            characters.extend(chunk.valid().chars().map(Ok));
            characters.extend(chunk.invalid().iter().map(|byte| Err((*byte).into())));
        }
        characters
    }

    /// The text without quotes, what is no letter left out.
    #[must_use]
    pub fn plain(&self) -> String {
        self.characters().into_iter().flatten().collect()
    }
}

/// One character as C writes it.
fn escaped(out: &mut String, one: Result<char, u32>, quote: char) -> fmt::Result {
    let octal = |out: &mut String, code: u32| write!(out, "\\{code:03o}");
    match one {
        Ok('\u{7}') => out.push_str("\\a"),
        Ok('\u{8}') => out.push_str("\\b"),
        Ok('\u{c}') => out.push_str("\\f"),
        Ok('\n') => out.push_str("\\n"),
        Ok('\r') => out.push_str("\\r"),
        Ok('\t') => out.push_str("\\t"),
        Ok('\u{b}') => out.push_str("\\v"),
        Ok('\u{1b}') => out.push_str("\\033"),
        Ok('\\') => out.push_str("\\\\"),
        Ok(letter) if letter == quote => {
            out.push('\\');
            out.push(letter);
        }
        Ok(letter) if letter.is_control() => {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                octal(out, byte.into())?;
            }
        }
        Ok(letter) => out.push(letter),
        Err(code) => {
            octal(out, code)?;
        }
    }
    Ok(())
}

fn character(f: &mut fmt::Formatter<'_>, code: i64, prefix: &str, byte: bool) -> fmt::Result {
    let mut text = String::new();
    let letter = match byte {
        // Bytes above 127 are no letters alone.
        true if !(0..0x80).contains(&code) => Err((code & 0xff) as u32),
        _ => u32::try_from(code)
            .ok()
            .and_then(char::from_u32)
            .ok_or(code as u32),
    };
    escaped(&mut text, letter, '\'')?;
    write!(f, "{code} {prefix}'{text}'")
}

/// As `printf` with `%g` and as many digits as distinguish all numbers: 9 of 32 bits, 17 of 64.
fn float(value: f64, single: bool) -> String {
    let digits: i32 = if single { 9 } else { 17 };
    if value.is_nan() {
        let sign = if value.is_sign_negative() { "-" } else { "" };
        let fraction = match single {
            true => u64::from((value as f32).to_bits() & 0x7f_ffff),
            false => value.to_bits() & 0xf_ffff_ffff_ffff,
        };
        return format!("{sign}nan({fraction:#x})");
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let precision = usize::try_from(digits.saturating_sub(1)).unwrap_or(16);
    let scientific = format!("{value:.precision$e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs());
    }
    let places =
        usize::try_from((precision as i64).saturating_sub(i64::from(exponent))).unwrap_or(0);
    trimmed(&format!("{value:.places$}"))
}

/// Digits that distinguish all numbers of x87.
const EXTENDED_DIGITS: usize = 21;

/// As `printf` with `%.21Lg`.
fn extended(exponent: u16, significand: u64) -> String {
    let sign = if exponent & 0x8000 != 0 { "-" } else { "" };
    let exponent = i32::from(exponent & 0x7fff);
    if exponent == 0x7fff {
        return match significand << 1 {
            0 => format!("{sign}inf"),
            _ => format!("{sign}nan({significand:#x})"),
        };
    }
    if significand == 0 {
        return format!("{sign}0");
    }
    // The significand is an integer times a power of 2; denormal numbers have the exponent of the smallest.
    let power = exponent.max(1).saturating_sub(16383 + 63);
    let (digits, scale) = decimal(significand, power);
    let (digits, carry) = rounded(&digits, EXTENDED_DIGITS);
    let length = i32::try_from(digits.1).unwrap_or(0);
    let exponent = length
        .saturating_sub(1)
        .saturating_sub(scale)
        .saturating_add(i32::from(carry));
    let digits = digits.0.trim_end_matches('0');
    let (first, rest) = digits.split_at_checked(1).unwrap_or(("0", ""));
    if exponent < -4 || exponent >= EXTENDED_DIGITS as i32 {
        let point = if rest.is_empty() { "" } else { "." };
        let mark = if exponent < 0 { '-' } else { '+' };
        let exponent = exponent.unsigned_abs();
        return format!("{sign}{first}{point}{rest}e{mark}{exponent:02}");
    }
    if exponent < 0 {
        let zeros = "0".repeat((exponent.unsigned_abs() as usize).saturating_sub(1));
        return format!("{sign}0.{zeros}{digits}");
    }
    let before = (exponent.unsigned_abs() as usize).saturating_add(1);
    match digits.split_at_checked(before) {
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, rest)) => format!("{sign}{whole}.{rest}"),
        None => format!("{sign}{digits:0<before$}"),
    }
}

/// `number * 2^power` in decimal: its digits, and how many of them follow the point.
fn decimal(number: u64, power: i32) -> (String, i32) {
    // Groups of nine digits, the lowest first.
    const GROUP: u64 = 1_000_000_000;
    let mut groups = vec![
        number % GROUP,
        number / GROUP % GROUP,
        number / GROUP / GROUP,
    ];
    let factor = if power < 0 { 5 } else { 2 };
    for _ in 0..power.unsigned_abs() {
        let mut carry = 0;
        for group in &mut groups {
            let product = group.saturating_mul(factor).saturating_add(carry);
            *group = product % GROUP;
            carry = product / GROUP;
        }
        if carry > 0 {
            groups.push(carry);
        }
    }
    let digits: String = groups
        .iter()
        .rev()
        .map(|group| format!("{group:09}"))
        .collect();
    (
        digits.trim_start_matches('0').to_owned(),
        power.saturating_neg().max(0),
    )
}

/// The first `count` digits with the number of all of them, and whether rounding made one more.
fn rounded(digits: &str, count: usize) -> ((String, usize), bool) {
    let all = digits.len();
    let Some((kept, cut)) = digits.split_at_checked(count) else {
        return ((digits.to_owned(), all), false);
    };
    let half = cut.bytes().next().unwrap_or(b'0');
    let is_more = cut.bytes().skip(1).any(|digit| digit != b'0');
    let is_odd = kept.bytes().last().is_some_and(|digit| digit % 2 == 1);
    let up = half > b'5' || (half == b'5' && (is_more || is_odd));
    let mut kept: Vec<u8> = kept.bytes().collect();
    if up {
        for digit in kept.iter_mut().rev() {
            if *digit == b'9' {
                *digit = b'0';
            } else {
                *digit = digit.saturating_add(1);
                return ((String::from_utf8_lossy(&kept).into_owned(), all), false);
            }
        }
        kept.insert(0, b'1');
    }
    ((String::from_utf8_lossy(&kept).into_owned(), all), up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        let text = Text {
            codes: bytes.iter().map(|byte| u32::from(*byte)).collect(),
            bytes: true,
            prefix: "",
            more: false,
        };
        text.to_string()
    }

    #[test]
    fn texts_are_written_as_gdb_writes_them() {
        assert_eq!(text(b"abc"), r#""abc""#);
        assert_eq!(text(b""), r#""""#);
        assert_eq!(text(b"a\"\\\n\x01"), r#""a\"\\\n\001""#);
        assert_eq!(text(b"\x015"), r#""\0015""#);
        assert_eq!(
            text(b"abc\0\0\0\0\0\0\0\0\0\0\0\0"),
            r#""abc", '\000' <repeats 12 times>"#
        );
        assert_eq!(
            text(&[0; 10]),
            r#""\000\000\000\000\000\000\000\000\000\000""#
        );
        assert_eq!(text(b"\xff\xfe"), r#""\377\376""#);
        assert_eq!(text("ä".as_bytes()), "\"ä\"");
    }

    #[test]
    fn numbers_are_written_as_gdb_writes_them() {
        assert_eq!(float(1.0, false), "1");
        assert_eq!(float(0.1, false), "0.10000000000000001");
        assert_eq!(float(f64::from(0.1_f32), true), "0.100000001");
        assert_eq!(float(1e300, false), "1.0000000000000001e+300");
        assert_eq!(float(-2.5, true), "-2.5");
        assert_eq!(extended(0x4000, 0xd000_0000_0000_0000), "3.25");
        assert_eq!(extended(0xbfff, 0x8000_0000_0000_0000), "-1");
        assert_eq!(
            extended(0x3ffb, 0xcccc_cccc_cccc_cccd),
            "0.100000000000000000001"
        );
        assert_eq!(extended(0x4009, 0x9a40_0000_0000_0000), "1234");
        assert_eq!(extended(0, 0), "0");
        assert_eq!(extended(0x7ffe, u64::MAX), "1.18973149535723176502e+4932");
        assert_eq!(float(123_456.0, false), "123456");
        assert_eq!(float(1e-5, false), "1.0000000000000001e-05");
        assert_eq!(
            Value::Char {
                code: 97,
                prefix: "",
                byte: true
            }
            .to_string(),
            "97 'a'"
        );
        assert_eq!(
            Value::Char {
                code: 0,
                prefix: "",
                byte: true
            }
            .to_string(),
            r"0 '\000'"
        );
        assert_eq!(
            Value::Char {
                code: -1,
                prefix: "",
                byte: true
            }
            .to_string(),
            r"-1 '\377'"
        );
    }
}
