//! Aligned columns.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::terminal_line;

/// The width for a table, and the columns that may be shortened to fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit<'c> {
    pub(super) width: usize,
    pub(super) columns: &'c [usize],
}

/// Like [`aligned`]; wide columns are shortened with `…`, the widest first, until each line fits.
#[must_use]
pub(super) fn aligned_within(
    header: &[&str],
    rows: &[Vec<String>],
    fit: Option<Fit<'_>>,
) -> Vec<String> {
    /// Minimum width of a column.
    const NARROWEST: usize = 6;
    let Some(fit) = fit else {
        return aligned(header, rows);
    };
    let mut rows: Vec<Vec<String>> = rows.iter().map(|row| clean(row)).collect();
    let all = rows.iter().flat_map(|row| row.iter().enumerate());
    let mut widths: Vec<usize> = header.iter().map(|cell| width(cell)).collect();
    for (column, cell) in all {
        if let Some(widest) = widths.get_mut(column) {
            *widest = width(cell).max(*widest);
        }
    }
    let least = |column: usize| {
        header
            .get(column)
            .map_or(0, |cell| width(cell))
            .max(NARROWEST)
    };
    let gaps = widths.len().saturating_sub(1) * 2;
    while widths.iter().sum::<usize>() + gaps > fit.width {
        let can_shrink = |column: &&usize| {
            widths
                .get(**column)
                .is_some_and(|now| *now > least(**column))
        };
        let widest = fit
            .columns
            .iter()
            .filter(can_shrink)
            .max_by_key(|column| widths.get(**column));
        match widest.and_then(|column| widths.get_mut(*column)) {
            Some(width) => *width -= 1,
            None => break,
        }
    }
    for row in &mut rows {
        for (cell, width) in row.iter_mut().zip(&widths) {
            cut(cell, *width);
        }
    }
    let mut lines = aligned(header, &rows);
    lines.iter_mut().for_each(|line| cut(line, fit.width));
    lines
}

/// Shortens a text to this many columns of a terminal, ending with `…`.
fn cut(text: &mut String, most: usize) {
    if width(text) <= most {
        return;
    }
    let mut left = most.saturating_sub(1);
    let fits = |c: &char| {
        let rest = left.checked_sub(c.width().unwrap_or(0));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    *text = text.chars().take_while(fits).chain(['…']).collect();
}

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

/// Columns on a terminal: some characters occupy two, combining marks none.
fn width(cell: &str) -> usize {
    UnicodeWidthStr::width(cell)
}
