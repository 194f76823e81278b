//! Comma-separated values (RFC 4180) of the same rows as JSON, so that both formats have the same
//! content.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::terminal_line;

/// A header line and one line for each row. `columns` are keys of the rows; a nested value is written as JSON.
///
/// # Errors
/// If a row cannot be serialized.
pub(super) fn csv_text<R: Serialize>(columns: &[&str], rows: &[R]) -> Result<String> {
    let mut text = columns.join(",") + "\n";
    for row in rows {
        let row = serde_json::to_value(row)?;
        let cells = columns.iter().map(|column| match row.get(*column) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => quoted(text),
            Some(other) => quoted(&other.to_string()),
        });
        text.push_str(&cells.collect::<Vec<_>>().join(","));
        text.push('\n');
    }
    Ok(text)
}

/// Quoted if RFC 4180 requires it. A leading `=`, `+`, `-` or `@` is escaped, because a spreadsheet would run
/// it as a formula.
fn quoted(cell: &str) -> String {
    let cell = terminal_line(cell);
    let formula = cell.starts_with(['=', '+', '-', '@']);
    let guarded = if formula { format!("'{cell}") } else { cell };
    if guarded.contains([',', '"']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_are_quoted_and_safe_in_spreadsheets() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "'=1+1");
        assert_eq!(quoted("a\nb"), "a\\nb");
    }

    #[test]
    fn csv_writes_nested_values_as_json_and_null_as_nothing() {
        let rows = [serde_json::json!({"a": null, "b": {"c": 1}, "d": true, "e": "x"})];
        let text = csv_text(&["e", "d", "b", "a"], &rows).unwrap();
        assert_eq!(text, "e,d,b,a\nx,true,\"{\"\"c\"\":1}\",\n");
    }
}
