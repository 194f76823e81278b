//! Sorts the dumps on the list.
//!
//! A hundred thousand rows must be sorted before a delay is visible. The cost is in memory
//! accesses, not in comparisons, because texts are scattered in memory. So the start of each row's
//! value and its time are first copied into an array. Only rows that are equal in both are looked
//! up.

use std::cmp::Ordering;

use cdh_store::DumpSummary;
use rayon::prelude::*;

use super::{Column, Tops};

/// Bytes of a value in the array: a namespace and most of a pod's name.
const BEGINNING: usize = 40;
/// Number of rows that one thread processes at a time.
const SHARE: usize = 4096;

/// Sort key of a row.
struct Key {
    /// Prefix of the value; smaller sorts first. A value ends at the first NUL.
    beginning: [u8; BEGINNING],
    /// Whether the prefix is the complete value.
    whole: bool,
    microseconds: i64,
    row: u32,
}

/// Encodes a value so that comparing bytes compares values.
struct Encoder {
    bytes: [u8; BEGINNING],
    length: usize,
}

impl Encoder {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.length.min(BEGINNING)..);
        let room = room.unwrap_or_default();
        let count = bytes.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        self.length += bytes.len();
    }

    /// An absent text sorts before an empty one.
    fn text(&mut self, text: Option<&[u8]>) {
        if let Some(text) = text {
            self.put(&[1]);
            self.put(text);
            if text.contains(&0) {
                // A NUL in the text looks like its end, so such values are compared completely.
                self.length += BEGINNING;
            }
        }
        self.put(&[0]);
    }
}

impl Key {
    fn of(row: u32, dump: &DumpSummary, column: Column, tops: &Tops) -> Self {
        let (bytes, length) = ([0; BEGINNING], 0);
        let mut value = Encoder { bytes, length };
        match column {
            // The time is compared anyway, but in the opposite order of all other columns.
            Column::Time => {
                let time = dump.captured_at.as_microsecond().cast_unsigned() ^ (1 << 63);
                value.put(&(!time).to_be_bytes());
            }
            Column::Workload => {
                value.text(dump.namespace.as_deref().map(str::as_bytes));
                value.text(dump.pod.as_deref().map(str::as_bytes));
            }
            Column::Exe => value.text(Some(dump.exe.as_bytes())),
            Column::Signal => value.text(Some(dump.signal.as_bytes())),
            Column::Verdict => value.put(&[badness(dump)]),
            Column::Size => match dump.size {
                Some(size) => {
                    value.put(&[0]);
                    value.put(&(!size).to_be_bytes());
                }
                None => value.put(&[1]),
            },
            Column::Top => match tops.of(dump) {
                Some(top) => value.text(Some(top.as_bytes())),
                None => value.put(&[2]),
            },
        }
        Self {
            beginning: value.bytes,
            whole: value.length <= BEGINNING,
            microseconds: dump.captured_at.as_microsecond(),
            row,
        }
    }
}

/// Sorts row numbers by a column, optionally reversed. Equal rows are sorted newest first.
pub(super) fn sort<'d>(
    rows: &mut [u32],
    dump: impl Fn(u32) -> Option<&'d DumpSummary> + Sync,
    (column, reverse): (Column, bool),
    tops: &Tops,
) {
    let key = |row: &u32| dump(*row).map(|found| Key::of(*row, found, column, tops));
    let keys = rows.par_iter().with_min_len(SHARE).filter_map(key);
    let mut keys: Vec<Key> = keys.collect();
    keys.par_sort_unstable_by(|a, b| {
        let rest = || match (dump(a.row), dump(b.row)) {
            (Some(a), Some(b)) => compare(a, b, column, tops),
            _ => Ordering::Equal,
        };
        let order = a.beginning.cmp(&b.beginning);
        let order = match order {
            Ordering::Equal if !(a.whole && b.whole) => rest(),
            order => order,
        };
        let order = if reverse { order.reverse() } else { order };
        let names = || {
            let key = |row| dump(row).map(|dump| &dump.key);
            key(b.row).cmp(&key(a.row))
        };
        order
            .then(b.microseconds.cmp(&a.microseconds))
            .then_with(names)
    });
    for (row, key) in rows.iter_mut().zip(keys) {
        *row = key.row;
    }
}

/// Compares two dumps by a column.
pub(super) fn between(
    a: &DumpSummary,
    b: &DumpSummary,
    (column, reverse): (Column, bool),
    tops: &Tops,
) -> Ordering {
    let order = compare(a, b, column, tops);
    let order = if reverse { order.reverse() } else { order };
    order.then_with(|| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)))
}

fn badness(dump: &DumpSummary) -> u8 {
    match dump.verdict.as_str() {
        "empty" => 0,
        "truncated" => 1,
        "unknown" => 2,
        _ => 3,
    }
}

fn compare(a: &DumpSummary, b: &DumpSummary, column: Column, tops: &Tops) -> Ordering {
    match column {
        Column::Time => b.captured_at.cmp(&a.captured_at),
        Column::Workload => (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)),
        Column::Exe => a.exe.as_bytes().cmp(b.exe.as_bytes()),
        Column::Signal => a.signal.cmp(&b.signal),
        Column::Verdict => badness(a).cmp(&badness(b)),
        Column::Size => b.size.cmp(&a.size),
        // Unknown frames sort last.
        Column::Top => match (tops.of(a), tops.of(b)) {
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::model::COLUMNS;
    use crate::tui::tests::dump;

    #[test]
    fn sort_agrees_with_direct_comparison() {
        let mut dumps: Vec<DumpSummary> = (0..300).map(dump).collect();
        for (number, dump) in dumps.iter_mut().enumerate() {
            match number % 7 {
                0 => dump.namespace = None,
                1 => dump.pod = None,
                2 => dump.pod = Some(String::new()),
                3 => dump.namespace = Some(format!("{}{}", "long".repeat(12), number % 5)),
                4 => dump.size = None,
                _ => {}
            }
        }
        let tops = Tops::default();
        for column in COLUMNS {
            for reverse in [false, true] {
                let mut rows: Vec<u32> = (0..dumps.len() as u32).rev().collect();
                sort(
                    &mut rows,
                    |row| dumps.get(row as usize),
                    (column, reverse),
                    &tops,
                );
                let mut plain: Vec<&DumpSummary> = dumps.iter().collect();
                plain.sort_by(|a, b| between(a, b, (column, reverse), &tops));
                let ours: Vec<&DumpSummary> =
                    rows.iter().map(|row| &dumps[*row as usize]).collect();
                assert_eq!(ours, plain, "{column:?} {reverse}");
            }
        }
    }
}
