//! Aligned columns.

use super::terminal_line;

/// Lines of `rows` under `header`, each column as wide as its widest cell; no trailing blanks.
#[must_use]
pub(super) fn aligned(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header)
        .chain(rows.iter().map(|row| clean(row)))
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, column) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(column - width(cell) + 2));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn clean(row: &[String]) -> Vec<String> {
    row.iter().map(|cell| terminal_line(cell)).collect()
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}
