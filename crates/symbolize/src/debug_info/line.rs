//! Line programs: one run answers all addresses of a unit.

use gimli::{ColumnType, UnitRef};

use super::{Reader, covered_by};
use crate::Location;
use crate::deadline::Deadline;

/// Rows between two looks at the clock.
const ROWS_PER_CHECK: u32 = 1 << 16;

#[derive(Clone, Copy)]
struct Row {
    address: u64,
    file: u64,
    line: u64,
    column: u64,
}

/// The location of each address (ascending); rows before an error count.
pub(super) fn locations(
    unit: UnitRef<'_, Reader<'_>>,
    addresses: &[u64],
    deadline: Deadline,
) -> Vec<Option<Location>> {
    let mut found: Vec<Option<Row>> = vec![None; addresses.len()];
    // An error leaves the rest unknown.
    let _ = run(unit, addresses, &mut found, deadline);
    let locate =
        |row: Option<Row>| row.and_then(|row| location(unit, row.file, row.line, row.column));
    found.into_iter().map(locate).collect()
}

fn run(
    unit: UnitRef<'_, Reader<'_>>,
    addresses: &[u64],
    found: &mut [Option<Row>],
    deadline: Deadline,
) -> gimli::Result<()> {
    let Some(program) = unit.line_program.clone() else {
        return Ok(());
    };
    let mut rows = program.rows();
    let mut previous: Option<Row> = None;
    let mut left = addresses.len();
    let mut count = 0_u32;
    while let Some((_, row)) = rows.next_row()? {
        count = count.wrapping_add(1);
        if count.is_multiple_of(ROWS_PER_CHECK) && deadline.passed() {
            break;
        }
        let address = row.address();
        if let Some(start) = previous.filter(|previous| previous.address < address) {
            let covered = covered_by(addresses, start.address, address);
            for slot in found.get_mut(covered).unwrap_or_default() {
                if slot.is_none() {
                    *slot = Some(start);
                    left = left.saturating_sub(1);
                }
            }
        }
        if left == 0 {
            break;
        }
        // Sequences of discarded functions start at 0.
        previous = (!row.end_sequence() && address != 0).then(|| Row {
            address,
            file: row.file_index(),
            line: row.line().map_or(0, u64::from),
            column: match row.column() {
                ColumnType::LeftEdge => 0,
                ColumnType::Column(column) => column.into(),
            },
        });
    }
    Ok(())
}

/// A location by the unit's file table. Line 0 means that no line of the source is meant.
pub(super) fn location(
    unit: UnitRef<'_, Reader<'_>>,
    file: u64,
    line: u64,
    column: u64,
) -> Option<Location> {
    let line = u32::try_from(line).ok().filter(|line| *line != 0)?;
    let column = u32::try_from(column).ok().filter(|column| *column != 0);
    Some(Location {
        file: file_name(unit, file)?,
        line,
        column,
        md5: md5(unit, file),
    })
}

fn file_name(unit: UnitRef<'_, Reader<'_>>, index: u64) -> Option<String> {
    let header = unit.line_program.as_ref()?.header();
    let file = header.file(index)?;
    let mut path = String::new();
    // Since version 5 directory 0 is the unit's own and is in the table.
    if (file.directory_index() != 0 || header.version() < 5)
        && let Some(directory) = unit.comp_dir
    {
        join(&mut path, &directory.to_string_lossy());
    }
    if let Some(directory) = file.directory(header)
        && let Ok(directory) = unit.attr_string(directory)
    {
        join(&mut path, &directory.to_string_lossy());
    }
    join(
        &mut path,
        &unit.attr_string(file.path_name()).ok()?.to_string_lossy(),
    );
    Some(path)
}

fn md5(unit: UnitRef<'_, Reader<'_>>, index: u64) -> Option<String> {
    let header = unit.line_program.as_ref()?.header();
    let file = header.file(index).filter(|_| header.file_has_md5())?;
    // Compilers write zeros for files that they could not read again.
    let known = file.md5().iter().any(|byte| *byte != 0);
    known.then(|| {
        file.md5()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    })
}

fn join(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    }
    if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}
