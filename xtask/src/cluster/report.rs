//! What was checked, and what came of it: a line for each check as it ends, and a table of all of them.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;

use crate::progress;

/// The outcomes.
#[derive(Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

struct Row {
    group: String,
    name: String,
    passed: bool,
    facts: String,
}

impl Report {
    /// Runs a check and prints its outcome. What it returns, or why it failed, are the facts.
    pub(super) fn check(&mut self, group: &str, name: &str, work: impl FnOnce() -> Result<String>) {
        let begun = Instant::now();
        let outcome = progress::during(&format!("checking {name}"), work);
        let (passed, facts) = match outcome {
            Ok(facts) => (true, facts),
            Err(error) => (false, format!("{error:#}")),
        };
        // A cell of a table is one line.
        let facts = facts.split_whitespace().collect::<Vec<_>>().join(" ");
        let word = word(passed);
        println!(
            "{word}  {group}: {name} ({}): {facts}",
            progress::spoken(begun.elapsed())
        );
        self.rows.push(Row {
            group: group.to_owned(),
            name: name.to_owned(),
            passed,
            facts,
        });
    }

    /// How many failed, and how many there were.
    pub(super) fn failed(&self) -> (usize, usize) {
        let failed = self.rows.iter().filter(|row| !row.passed);
        (failed.count(), self.rows.len())
    }

    /// As a table in Markdown.
    pub(super) fn table(&self) -> String {
        let mut table = "| group | check | outcome | facts |\n|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} |",
                cell(&row.group),
                cell(&row.name),
                word(row.passed),
                cell(&row.facts)
            );
        }
        table
    }
}

fn word(passed: bool) -> &'static str {
    match passed {
        true => "PASS",
        false => "FAIL",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn table_has_one_line_for_each_check_and_the_reason_of_a_failure() {
        let mut report = Report::default();
        report.check("walk", "Job", || Ok("a|b\nc".to_owned()));
        report.check("walk", "CronJob", || bail!("owner is missing"));
        assert_eq!(report.failed(), (1, 2));
        let table = report.table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| walk | Job | PASS | a\\|b c |",
                "| walk | CronJob | FAIL | owner is missing |"
            ]
        );
    }
}
