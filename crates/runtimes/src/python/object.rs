//! Python objects: texts, numbers and short descriptions of values.

use super::Interpreter;

/// `tp_flags` of the built-in types and those derived from them (`Include/object.h`).
const LONG: u64 = 1 << 24;
const LIST: u64 = 1 << 25;
const TUPLE: u64 = 1 << 26;
const BYTES: u64 = 1 << 27;
const STRING: u64 = 1 << 28;
const DICT: u64 = 1 << 29;
const EXCEPTION: u64 = 1 << 30;
const TYPE: u64 = 1 << 31;

/// Characters of a name, of a message, and of a value that is only described.
pub(super) const NAME: usize = 512;
pub(super) const PATH: usize = 4096;
pub(super) const MESSAGE: usize = 2000;
const VALUE: usize = 60;
/// Digits of an integer that are read: more is shown by its size.
const DIGITS: u64 = 4;
/// Elements of a tuple of arguments that are described.
const ARGUMENTS: u64 = 8;
/// Bits in a digit of an integer.
const DIGIT_BITS: u32 = 30;

impl Interpreter<'_> {
    /// The type of the object at `at`: its address and its flags.
    fn type_of(&self, at: u64) -> Option<(u64, u64)> {
        let object = &self.layout.object;
        let kind = self.process.field(at, object.kind)?;
        let flags = self.process.field(kind, object.type_flags)?;
        Some((kind, flags))
    }

    /// Name of the type of the object at `at`.
    pub(super) fn type_name(&self, at: u64) -> Option<String> {
        let kind = self.process.field(at, self.layout.object.kind)?;
        self.name_of_type(kind)
    }

    fn name_of_type(&self, kind: u64) -> Option<String> {
        let name = self.process.field(kind, self.layout.object.type_name)?;
        self.process
            .c_text(name, NAME)
            .filter(|name| !name.is_empty())
    }

    /// The string at `at`, with `…` in place of what is above `limit` characters. `None` for other objects.
    pub(super) fn text(&self, at: u64, limit: usize) -> Option<String> {
        let (_, flags) = self.type_of(at)?;
        if flags & STRING == 0 {
            return None;
        }
        let layout = &self.layout.string;
        let state = self.process.u32(at.checked_add(layout.state)?)?;
        let is_set = |bit: u32| state.wrapping_shr(bit) & 1 == 1;
        let width = match state.wrapping_shr(layout.kind_bit) & 7 {
            width @ (1 | 2 | 4) => width as usize,
            _ => return None,
        };
        let length = self.process.field(at, layout.length)?;
        let data = match (is_set(layout.compact_bit), is_set(layout.ascii_bit)) {
            (true, true) => at.checked_add(layout.ascii)?,
            (true, false) => at.checked_add(layout.compact)?,
            (false, _) => self.process.field(at, layout.data)?,
        };
        let count = usize::try_from(length).unwrap_or(usize::MAX).min(limit);
        let bytes = self.process.bytes(data, count.checked_mul(width)?)?;
        let character = |bytes: &[u8]| {
            let code = bytes
                .iter()
                .rev()
                .fold(0, |code, byte| code << 8 | u32::from(*byte));
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
        let mut text: String = bytes.chunks_exact(width).map(character).collect();
        if length > count as u64 {
            text.push('…');
        }
        Some(text)
    }

    /// The value of the integer at `at`, unless it is large.
    pub(super) fn integer(&self, at: u64) -> Option<i128> {
        let (size, is_negative) = self.digits_of(at)?;
        if size > DIGITS {
            return None;
        }
        let start = at.checked_add(self.layout.object.int_digits)?;
        let mut value = 0_i128;
        for index in (0..size).rev() {
            let digit = self
                .process
                .u32(start.checked_add(index.checked_mul(4)?)?)?;
            value = value
                .checked_mul(1 << DIGIT_BITS)?
                .checked_add(i128::from(digit))?;
        }
        Some(if is_negative {
            value.wrapping_neg()
        } else {
            value
        })
    }

    /// Number of digits of an integer, and whether it is negative.
    fn digits_of(&self, at: u64) -> Option<(u64, bool)> {
        let object = &self.layout.object;
        Some(match object.int_tag {
            // The lowest two bits: 0 positive, 1 zero, 2 negative.
            Some(tag) => {
                let tag = self.process.field(at, tag)?;
                (tag >> 3, tag & 3 == 2)
            }
            None => {
                let size = self.process.field(at, object.size)?.cast_signed();
                (size.unsigned_abs(), size < 0)
            }
        })
    }

    /// A value in a few words: numbers and short strings as Python writes them, containers by type and length.
    pub(super) fn describe(&self, at: u64) -> Option<String> {
        let (kind, flags) = self.type_of(at)?;
        let name = self.name_of_type(kind)?;
        let object = &self.layout.object;
        let size = || self.process.field(at, object.size);
        let counted = |count: u64, unit: &str| {
            let plural = if count == 1 { "" } else { "s" };
            format!("{name} of {count} {unit}{plural}")
        };
        let described = match name.as_str() {
            "NoneType" => Some("None".to_owned()),
            "bool" => self
                .integer(at)
                .map(|value| if value == 0 { "False" } else { "True" }.to_owned()),
            "float" => {
                let bits = self.process.field(at, object.float)?;
                Some(format!("{:?}", f64::from_bits(bits)))
            }
            "set" | "frozenset" => Some(counted(self.process.field(at, object.set_used)?, "item")),
            "bytearray" => Some(counted(size()?, "byte")),
            _ if flags & LONG != 0 => self.integer(at).map_or_else(
                || {
                    Some(counted(
                        self.digits_of(at)?.0.checked_mul(u64::from(DIGIT_BITS))?,
                        "bit",
                    ))
                },
                |value| Some(value.to_string()),
            ),
            _ if flags & STRING != 0 => self.text(at, VALUE).map(|text| quoted(&text)),
            _ if flags & BYTES != 0 => {
                let size = usize::try_from(size()?).ok()?;
                let bytes = self
                    .process
                    .bytes(at.checked_add(object.bytes)?, size.min(VALUE))?;
                let more = if size > VALUE { "…" } else { "" };
                Some(format!("b'{}{more}'", bytes.escape_ascii()))
            }
            _ if flags & LIST != 0 => Some(counted(size()?, "item")),
            _ if flags & TUPLE != 0 => Some(counted(size()?, "item")),
            _ if flags & DICT != 0 => Some(counted(
                self.process.field(at, self.layout.dict.used)?,
                "item",
            )),
            _ if flags & TYPE != 0 => self.name_of_type(at).map(|name| format!("<class {name}>")),
            _ if flags & EXCEPTION != 0 => self.exception(at),
            _ => None,
        };
        described.or_else(|| Some(format!("<{name}>")))
    }

    /// An exception as the last line of a traceback shows it: `ValueError: bad value`.
    pub(super) fn exception(&self, at: u64) -> Option<String> {
        let (kind, flags) = self.type_of(at)?;
        if flags & EXCEPTION == 0 {
            return None;
        }
        let name = self.name_of_type(kind)?;
        let arguments = self.process.field(at, self.layout.object.exception_args)?;
        Some(
            match self
                .message(&name, arguments)
                .filter(|text| !text.is_empty())
            {
                Some(text) => format!("{name}: {text}"),
                None => name,
            },
        )
    }

    /// What `str` makes of an exception with these arguments.
    fn message(&self, name: &str, arguments: u64) -> Option<String> {
        let items = self.tuple(arguments, ARGUMENTS)?;
        let number = |at: &u64| self.integer(*at);
        match items.as_slice() {
            [] => None,
            [only] if name == "KeyError" => self.describe(*only),
            [only] => self.text(*only, MESSAGE).or_else(|| self.describe(*only)),
            // `OSError` and its subclasses.
            [code, text] if number(code).is_some() && self.text(*text, 1).is_some() => Some(
                format!("[Errno {}] {}", number(code)?, self.text(*text, MESSAGE)?),
            ),
            several => {
                let words = several
                    .iter()
                    .map(|at| self.describe(*at).unwrap_or_else(|| "?".to_owned()));
                Some(format!("({})", words.collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// The first `limit` items of the tuple at `at`.
    pub(super) fn tuple(&self, at: u64, limit: u64) -> Option<Vec<u64>> {
        let (_, flags) = self.type_of(at)?;
        if flags & TUPLE == 0 {
            return None;
        }
        let object = &self.layout.object;
        let count = self.process.field(at, object.size)?.min(limit);
        let size = usize::try_from(count.checked_mul(8)?).ok()?;
        let bytes = self
            .process
            .bytes(at.checked_add(object.tuple_items)?, size)?;
        let (words, _) = bytes.as_chunks::<8>();
        Some(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// The bytes object at `at`, unless it has more than `limit` bytes.
    pub(super) fn byte_string(&self, at: u64, limit: usize) -> Option<Vec<u8>> {
        let (_, flags) = self.type_of(at)?;
        let size = self.process.field(at, self.layout.object.size)?;
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= limit && flags & BYTES != 0)?;
        self.process
            .bytes(at.checked_add(self.layout.object.bytes)?, size)
    }
}

/// As `repr` writes most strings. Control characters are escaped where the text is shown.
fn quoted(text: &str) -> String {
    format!(
        "'{}'",
        text.replace('\\', "\\\\")
            .replace('\'', "\\'")
            .replace('\n', "\\n")
    )
}
