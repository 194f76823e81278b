//! From an instruction to a line: the three formats of CPython's line tables.
//!
//! A table is hostile: it is read once from its start, and arithmetic wraps.

/// The line of the instruction at `at` bytes from the code's first one; `None` for instructions without a line.
pub(super) fn line(minor: u32, table: &[u8], first_line: i32, at: i64) -> Option<u32> {
    if at < 0 {
        return u32::try_from(first_line).ok();
    }
    let line = match minor {
        ..=9 => Some(of_lnotab(table, first_line, at)),
        10 => of_ranges(table, first_line, at),
        _ => of_locations(table, first_line, at),
    };
    u32::try_from(line?).ok()
}

/// Up to 3.9 (`Objects/lnotab_notes.txt`):
///
/// ```text
/// pairs of: bytes to the next entry u8 | lines to the next entry i8
/// ```
fn of_lnotab(table: &[u8], first_line: i32, at: i64) -> i32 {
    let (mut line, mut start) = (first_line, 0_i64);
    let (pairs, _) = table.as_chunks::<2>();
    for [bytes, lines] in pairs {
        start = start.wrapping_add(i64::from(*bytes));
        if start > at {
            break;
        }
        line = line.wrapping_add(i32::from(lines.cast_signed()));
    }
    line
}

/// 3.10 (PEP 626):
///
/// ```text
/// pairs of: length in bytes u8 | lines from the entry before i8, -128 for no line
/// ```
fn of_ranges(table: &[u8], first_line: i32, at: i64) -> Option<i32> {
    let (mut line, mut end) = (first_line, 0_i64);
    let (pairs, _) = table.as_chunks::<2>();
    for [length, lines] in pairs {
        end = end.wrapping_add(i64::from(*length));
        let lines = lines.cast_signed();
        if lines != i8::MIN {
            line = line.wrapping_add(i32::from(lines));
        }
        if at < end {
            return (lines != i8::MIN).then_some(line);
        }
    }
    None
}

/// From 3.11 on (`Objects/locations.md`):
///
/// ```text
/// entries of: 1 | kind (4 bits) | length in code units - 1 (3 bits), then bytes without the highest bit
/// kind 15: no line; 13, 14: lines from the entry before as a signed varint; 11, 12: 1, 2 lines; others: the same line
/// varint: six bits a byte, lowest first, bit 6 says that more follow; signed: bit 0 is the sign
/// ```
fn of_locations(table: &[u8], first_line: i32, at: i64) -> Option<i32> {
    const UNIT: i64 = 2;
    let (mut line, mut end) = (first_line, 0_i64);
    let mut rest = table;
    while let Some((head, tail)) = rest.split_first() {
        let kind = head >> 3 & 15;
        let units = i64::from(head & 7).wrapping_add(1);
        end = end.wrapping_add(units.wrapping_mul(UNIT));
        line = line.wrapping_add(match kind {
            13 | 14 => signed_varint(tail),
            11 | 12 => i32::from(kind).wrapping_sub(10),
            _ => 0,
        });
        if at < end {
            return (kind != 15).then_some(line);
        }
        let next = tail.iter().position(|byte| byte & 0x80 != 0)?;
        rest = tail.get(next..)?;
    }
    None
}

fn signed_varint(bytes: &[u8]) -> i32 {
    let mut value = 0_u32;
    for (index, byte) in (0_u32..6).zip(bytes) {
        let shift = index.wrapping_mul(6);
        value |= u32::from(byte & 63).wrapping_shl(shift);
        if byte & 64 == 0 {
            break;
        }
    }
    let size = (value >> 1).cast_signed();
    if value & 1 == 0 {
        size
    } else {
        size.wrapping_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `compile("def f():\n\n a = 1\n b = (\n  2\n )\n return a\n")` of each version: table, first line, and lines of
    /// offsets as `co_lines` or `dis` print them.
    #[test]
    fn lines_are_those_that_dis_prints() {
        let old = |at| line(9, b"\x00\x02\x04\x01\x04\x03", 1, at);
        assert_eq!([0, 2, 4, 6, 8, 10].map(old), [3, 3, 4, 4, 7, 7].map(Some));
        let ten = |at| line(10, b"\x04\x02\x02\x02\x02\xff\x02\x80\x02\x03", 1, at);
        let lines = [Some(3), Some(3), Some(5), Some(4), None, Some(7), None];
        assert_eq!([0, 2, 4, 6, 8, 10, 12].map(ten), lines);
        // RESUME at line 1; two lines on; a long form three lines back; no line.
        let table = b"\x80\x00\xd9\x08\x09\xf0\x07\x00\x09\x0a\xf8";
        let new = |at| line(12, table, 1, at);
        assert_eq!(new(0), Some(1));
        assert_eq!(new(2), Some(2));
        assert_eq!(new(5), Some(2));
        assert_eq!(new(6), u32::try_from(2 - 3).ok());
        assert_eq!(new(8), None);
        assert_eq!(line(12, table, 7, -2), Some(7));
    }

    #[test]
    fn hostile_tables_end() {
        let mut state = 9_u32;
        for size in 0..600 {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let table: Vec<u8> = (0..size).map(|_| next()).collect();
            for minor in 8..16 {
                for at in [-1, 0, 1, 999, i64::MAX] {
                    line(minor, &table, i32::MAX, at);
                }
            }
        }
    }
}
