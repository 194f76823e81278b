//! The order of the rooms: which folder may import which.
//!
//! ARCHITECTURE.md has the list, from the bottom up. A file may import files of its own line and of the lines before
//! it. Files of one crate may not import each other in a cycle. Exceptions are in `layers_allowed.txt`, with the reason.

mod imports;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::build;
use imports::Imports;

/// The page with the list, which is the code block after this heading.
const PAGE: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Order of the imports";

/// One exception a line: `FROM -> TO: reason` for an import that points up, `cycle PREFIX: reason` for cycles of files
/// below a path.
const ALLOWED: &str = include_str!("../layers_allowed.txt");

/// Checks the workspace.
///
/// # Errors
/// When an import points up, files form a new cycle, or a file has no room; all of them are printed.
pub(crate) fn check() -> Result<()> {
    let page = fs::read_to_string(build::root().join(PAGE)).context("cannot read the page")?;
    let order = Order::parse(&page)?;
    let allowed = Allowed::parse(ALLOWED)?;
    let imports = imports::of_workspace(build::root())?;
    let mut problems = order.problems(&imports, &allowed);
    problems.extend(cycle_problems(&imports, &allowed));
    for problem in &problems {
        eprintln!("{problem}");
    }
    let (arrows, rooms) = (imports.len(), order.rooms.len());
    ensure!(
        problems.is_empty(),
        "{} problems; the order is in {PAGE}, exceptions in xtask/src/layers_allowed.txt",
        problems.len()
    );
    println!("{arrows} imports between files, {rooms} rooms, none points up");
    Ok(())
}

/// Rooms with their rank; a room is a path or its beginning.
struct Order {
    rooms: BTreeMap<String, usize>,
}

impl Order {
    fn parse(page: &str) -> Result<Self> {
        let (_, section) = page
            .split_once(HEADING)
            .with_context(|| format!("{PAGE} has no section `{HEADING}`"))?;
        let block = section.split("```").nth(1);
        let block = block.with_context(|| format!("`{HEADING}` has no code block"))?;
        let mut rooms = BTreeMap::new();
        for (rank, line) in block.lines().skip(1).enumerate() {
            for room in line.split_whitespace() {
                ensure!(
                    rooms.insert(room.to_owned(), rank).is_none(),
                    "`{room}` is listed twice"
                );
            }
        }
        Ok(Self { rooms })
    }

    /// The room of a file: the longest one that its path begins with.
    fn room_of(&self, file: &str) -> Option<(&str, usize)> {
        let rooms = self.rooms.iter().filter(|(room, _)| {
            let rest = file.strip_prefix(room.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
        });
        let longest = rooms.max_by_key(|(room, _)| room.len())?;
        Some((longest.0, *longest.1))
    }

    fn problems(&self, imports: &Imports, allowed: &Allowed) -> Vec<String> {
        let files: BTreeSet<&str> = imports
            .iter()
            .flat_map(|(from, to)| [from.as_str(), to.as_str()])
            .collect();
        let homeless = files.iter().filter(|file| self.room_of(file).is_none());
        let mut problems: Vec<String> = homeless
            .map(|file| format!("{file} is in no room of {PAGE}"))
            .collect();
        for (from, to) in imports {
            let (Some(above), Some(below)) = (self.room_of(from), self.room_of(to)) else {
                continue;
            };
            let is_down = above.0 == below.0 || below.1 < above.1;
            if !is_down && !allowed.has_arrow(from, to) {
                problems.push(format!(
                    "{from} imports {to}, but `{}` is not below `{}`",
                    below.0, above.0
                ));
            }
        }
        problems
    }
}

/// The exceptions.
struct Allowed {
    arrows: Vec<(&'static str, &'static str)>,
    cycles: Vec<&'static str>,
}

impl Allowed {
    fn parse(text: &'static str) -> Result<Self> {
        let mut allowed = Self {
            arrows: Vec::new(),
            cycles: Vec::new(),
        };
        let lines = text.lines();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((what, reason)) = line.split_once(": ") else {
                bail!("a line without a reason: {line}");
            };
            ensure!(!reason.trim().is_empty(), "a line without a reason: {line}");
            match (what.strip_prefix("cycle "), what.split_once(" -> ")) {
                (Some(prefix), _) => allowed.cycles.push(prefix),
                (None, Some(arrow)) => allowed.arrows.push(arrow),
                (None, None) => bail!("neither `FROM -> TO` nor `cycle PREFIX`: {line}"),
            }
        }
        Ok(allowed)
    }

    fn has_arrow(&self, from: &str, to: &str) -> bool {
        self.arrows.contains(&(from, to))
    }

    fn has_cycle(&self, files: &[&str]) -> bool {
        let below = |prefix: &&str| files.iter().all(|file| file.starts_with(prefix));
        self.cycles.iter().any(below)
    }
}

fn cycle_problems(imports: &Imports, allowed: &Allowed) -> Vec<String> {
    let cycles = cycles(imports);
    let new = cycles.iter().filter(|files| !allowed.has_cycle(files));
    new.map(|files| {
        let inside = |(from, to): &&(String, String)| {
            files.contains(&from.as_str()) && files.contains(&to.as_str())
        };
        let arrows: Vec<String> = imports
            .iter()
            .filter(inside)
            .map(|(from, to)| format!("  {from} imports {to}"))
            .collect();
        format!(
            "{} files import each other in a cycle:\n{}",
            files.len(),
            arrows.join("\n")
        )
    })
    .collect()
}

/// Groups of at least two files that all reach each other.
fn cycles(imports: &Imports) -> Vec<Vec<&str>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in imports {
        next.entry(from).or_default().push(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next
        .keys()
        .map(|file| (*file, reachable(file, &next)))
        .collect();
    let mut found: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (file, others) in &reached {
        let group: Vec<&str> = others
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        if group.len() > 1 {
            found.insert(group);
        }
    }
    found.into_iter().collect()
}

fn reachable<'i>(file: &'i str, next: &BTreeMap<&'i str, Vec<&'i str>>) -> BTreeSet<&'i str> {
    let mut found = BTreeSet::new();
    let mut pending = vec![file];
    while let Some(file) = pending.pop() {
        for to in next.get(file).into_iter().flatten() {
            if found.insert(*to) {
                pending.push(to);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str =
        "# A\n## Order of the imports\ntext\n```text\nbase other\nmiddle\nmiddle/top\n```\n";

    fn imports(pairs: &[(&str, &str)]) -> Imports {
        let owned = |(from, to): &(&str, &str)| ((*from).to_owned(), (*to).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn nothing() -> Allowed {
        Allowed::parse("# none\n").unwrap()
    }

    #[test]
    fn workspace_imports_point_down_and_form_no_new_cycle() {
        check().unwrap();
    }

    #[test]
    fn order_refuses_imports_that_point_up_or_to_a_neighbour() {
        let order = Order::parse(ORDER).unwrap();
        let down = imports(&[
            ("middle/a.rs", "base/b.rs"),
            ("middle/top/c.rs", "middle/a.rs"),
        ]);
        assert_eq!(order.problems(&down, &nothing()), Vec::<String>::new());
        for up in [
            ("base/b.rs", "middle/a.rs"),
            ("base/b.rs", "other/x.rs"),
            ("middle/a.rs", "middle/top/c.rs"),
        ] {
            let problems = order.problems(&imports(&[up]), &nothing());
            assert_eq!(problems.len(), 1, "{up:?}: {problems:?}");
        }
        let homeless = order.problems(&imports(&[("new/a.rs", "base/b.rs")]), &nothing());
        assert!(
            homeless[0].contains("new/a.rs is in no room"),
            "{homeless:?}"
        );
    }

    #[test]
    fn cycles_are_refused_unless_they_are_allowed_with_a_reason() {
        let circle = imports(&[
            ("a/x.rs", "a/y.rs"),
            ("a/y.rs", "a/z.rs"),
            ("a/z.rs", "a/x.rs"),
        ]);
        let problems = cycle_problems(&circle, &nothing());
        assert!(
            problems[0].starts_with("3 files import each other"),
            "{problems:?}"
        );
        let allowed = Allowed::parse("cycle a/: it was there before\n").unwrap();
        assert!(cycle_problems(&circle, &allowed).is_empty());
        let line = imports(&[("a/x.rs", "a/y.rs"), ("a/x.rs", "a/z.rs")]);
        assert!(cycle_problems(&line, &nothing()).is_empty());
        assert!(Allowed::parse("cycle a/\n").is_err());
    }
}
