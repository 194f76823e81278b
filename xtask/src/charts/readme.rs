//! The chart's README: the part between two marker lines is made from `values.yaml` and `Chart.yaml`, in the layout of
//! helm-docs. The rest of the page is written by hand.
//!
//! `values.yaml` is ours, so a few rules replace a parser of YAML: a value is on one line, and the comment before it
//! begins with `--`. A value without such a comment is an error.

use anyhow::{Context, Result, bail, ensure};

const BEGIN: &str = "<!-- values -->\n";
const END: &str = "<!-- end of values -->\n";

/// A value that an operator can set.
#[derive(Debug, PartialEq, Eq)]
struct ChartValue {
    /// `store.url`.
    key: String,
    kind: &'static str,
    /// As `values.yaml` has it.
    default: String,
    description: String,
}

/// `readme` with the generated part for these files.
///
/// # Errors
/// If the markers are missing or a value has no description.
pub(super) fn with_values(readme: &str, values: &str, chart: &str) -> Result<String> {
    let (head, rest) = readme
        .split_once(BEGIN)
        .context("README.md has no line `<!-- values -->`")?;
    let (_, tail) = rest
        .split_once(END)
        .context("README.md has no line `<!-- end of values -->`")?;
    let field = |name: &str| {
        let mut found = chart
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.next().unwrap_or_default().trim_matches('"')
    };
    let mut text = format!(
        "## Requirements\n\nVersion {}, application version {}. Kubernetes: `{}`. Helm: 3.17 or later.\n\n## Values\n\n\
         | Key | Type | Default | Description |\n|-----|------|---------|-------------|\n",
        field("version"),
        field("appVersion"),
        field("kubeVersion"),
    );
    for value in parse(values)? {
        let cell = |text: &str| text.replace('|', "\\|");
        text.push_str(&format!(
            "| {} | {} | `{}` | {} |\n",
            value.key,
            value.kind,
            cell(&value.default),
            cell(&value.description),
        ));
    }
    Ok(format!("{head}{BEGIN}{text}{END}{tail}"))
}

/// The values in the order of the file.
fn parse(values: &str) -> Result<Vec<ChartValue>> {
    let mut found: Vec<ChartValue> = Vec::new();
    let mut tables: Vec<&str> = Vec::new();
    let mut description = None;
    for (number, line) in (1..).zip(values.lines()) {
        let text = line.trim_start();
        if let Some(comment) = text.strip_prefix('#') {
            description = comment.trim().strip_prefix("-- ");
            continue;
        }
        if text.is_empty() {
            description = None;
            continue;
        }
        let (name, default) = text
            .split_once(':')
            .with_context(|| format!("values.yaml:{number}: a value is on one line"))?;
        let depth = (line.len() - text.len()) / 2;
        ensure!(
            depth <= tables.len(),
            "values.yaml:{number}: `{name}` is indented too far"
        );
        tables.truncate(depth);
        let default = default.trim();
        if default.is_empty() {
            tables.push(name);
            description = None;
            continue;
        }
        let Some(description) = description.take() else {
            bail!("values.yaml:{number}: `{name}` has no comment that begins with `--`");
        };
        let key = tables.iter().chain([&name]).copied().collect::<Vec<_>>();
        found.push(ChartValue {
            key: key.join("."),
            kind: kind(default),
            default: default.to_owned(),
            description: description.to_owned(),
        });
    }
    Ok(found)
}

fn kind(default: &str) -> &'static str {
    match default {
        "true" | "false" => "bool",
        _ if default.starts_with('{') => "object",
        _ if default.starts_with('[') => "list",
        _ if default.bytes().all(|byte| byte.is_ascii_digit()) => "int",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "# About the file.\n\nstore:\n  # -- Bucket, `a` | `b`\n  url: \"\"\n  inner:\n    # -- Deep\n    on: true\n# -- Labels\nlabels: { a: b }\n";

    #[test]
    fn readme_values_are_those_of_the_file_with_their_types() {
        let readme = format!("# Title\n{BEGIN}old\n{END}tail\n");
        let chart = "version: 1.2.3\nappVersion: \"4.5\"\nkubeVersion: \">=1.25\"\n";
        let text = with_values(&readme, VALUES, chart).unwrap();
        assert!(
            text.starts_with("# Title\n<!-- values -->\n## Requirements\n\nVersion 1.2.3, application version 4.5. Kubernetes: `>=1.25`."),
            "{text}"
        );
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(
            rows[1..],
            [
                "| store.url | string | `\"\"` | Bucket, `a` \\| `b` |",
                "| store.inner.on | bool | `true` | Deep |",
                "| labels | object | `{ a: b }` | Labels |",
            ]
        );
        assert!(text.ends_with("<!-- end of values -->\ntail\n") && !text.contains("old"));
        assert_eq!(with_values(&text, VALUES, chart).unwrap(), text);
    }

    #[test]
    fn readme_refuses_values_without_description() {
        let error = parse("# plain\nstore: x\n").unwrap_err().to_string();
        assert!(
            error.contains("values.yaml:2: `store` has no comment"),
            "{error}"
        );
        parse("list:\n  - item\n").unwrap_err();
    }
}
