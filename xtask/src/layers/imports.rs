//! Which file of the workspace imports which: from `use` lines and from paths in the code.
//!
//! A name that a `mod.rs` or `lib.rs` re-exports leads to the file that defines it. Re-exports
//! themselves are not imports, and neither is test code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::tokens::{Token, tokens};

/// The directories with crates, and the names under which Rust code imports them.
const CRATES: [(&str, &str); 2] = [("agent", "cdh_agent"), (".", "cdh")];

/// Imports between files: from, to. Paths are relative to the repository, with `/`.
pub(super) type Imports = BTreeSet<(String, String)>;

/// One crate.
struct Crate {
    /// `cdh_store`.
    name: String,
    /// By the path of the module: the root's is empty.
    modules: BTreeMap<Vec<String>, Module>,
}

struct Module {
    file: String,
    tokens: Vec<Token>,
    /// `use` lines: the name in this module, the path, and whether it is re-exported.
    uses: Vec<Use>,
}

struct Use {
    name: String,
    path: Vec<String>,
    is_public: bool,
}

/// Reads all crates below `root`.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn of_workspace(root: &Path) -> Result<Imports> {
    let mut crates: Vec<(String, String)> = CRATES
        .iter()
        .map(|(directory, name)| ((*directory).to_owned(), (*name).to_owned()))
        .collect();
    for entry in fs::read_dir(root.join("crates")).context("cannot list crates/")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        crates.push((format!("crates/{name}"), format!("cdh_{name}")));
    }
    let read = |(directory, name): &(String, String)| {
        let source = match directory.as_str() {
            "." => "src".to_owned(),
            directory => format!("{directory}/src"),
        };
        Crate::read(root, name, &source)
    };
    let crates: Vec<Crate> = crates.iter().map(read).collect::<Result<_>>()?;
    let mut imports = Imports::new();
    for one in &crates {
        one.add_imports(&crates, &mut imports);
    }
    Ok(imports)
}

impl Crate {
    fn read(root: &Path, name: &str, source: &str) -> Result<Self> {
        let mut modules = BTreeMap::new();
        let mut pending = vec![source.to_owned()];
        while let Some(directory) = pending.pop() {
            let entries = fs::read_dir(root.join(&directory));
            for entry in entries.with_context(|| format!("cannot list {directory}"))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = format!("{directory}/{name}");
                if entry.file_type()?.is_dir() {
                    // Programs of a crate import its library as any other crate does.
                    if name != "bin" && name != "tests" {
                        pending.push(path);
                    }
                } else if let Some(stem) = name.strip_suffix(".rs")
                    && stem != "tests"
                    && !stem.ends_with("_tests")
                {
                    let text = fs::read_to_string(root.join(&path));
                    let text = text.with_context(|| format!("cannot read {path}"))?;
                    modules.insert(module_path(source, &path), Module::parse(path, &text));
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            modules,
        })
    }

    fn add_imports(&self, crates: &[Self], imports: &mut Imports) {
        for (at, module) in &self.modules {
            let is_face = module.is_face();
            let lines = module.uses.iter();
            let lines = lines.filter(|line| !(is_face && line.is_public));
            let inline = module.inline_paths();
            for path in lines.map(|line| line.path.clone()).chain(inline) {
                let target = self.file_of(crates, at, &path);
                if let Some(target) = target.filter(|target| *target != module.file) {
                    imports.insert((module.file.clone(), target));
                }
            }
        }
    }

    /// The file that defines what a path in module `at` names; `None` if that is not in the workspace.
    fn file_of(&self, crates: &[Self], at: &[String], path: &[String]) -> Option<String> {
        if let Some(own) = self.absolute(at, path) {
            return self.resolve(&own, 0);
        }
        let other = crates
            .iter()
            .find(|other| Some(&other.name) == path.first())?;
        other.resolve(path.get(1..)?, 0)
    }

    /// A path of this crate from its root.
    fn absolute(&self, at: &[String], path: &[String]) -> Option<Vec<String>> {
        let first = path.first()?;
        match first.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([at, &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let base = at.get(..at.len().checked_sub(ups)?)?;
                Some([base, &path[ups..]].concat())
            }
            child => {
                let module = [at, &[child.to_owned()]].concat();
                self.modules
                    .contains_key(&module)
                    .then(|| [at, path].concat())
            }
        }
    }

    /// Follows re-exports, a few deep.
    fn resolve(&self, path: &[String], depth: usize) -> Option<String> {
        const DEEPEST: usize = 8;
        let length = (0..=path.len())
            .rev()
            .find(|length| self.modules.contains_key(&path[..*length]))?;
        let (at, rest) = path.split_at(length);
        let module = &self.modules[at];
        let reexport = rest.first().and_then(|name| {
            let line = module.uses.iter().find(|line| line.name == *name)?;
            let own = self.absolute(at, &line.path)?;
            Some([&own[..], &rest[1..]].concat())
        });
        match reexport {
            Some(path) if depth < DEEPEST => self.resolve(&path, depth + 1),
            _ => Some(module.file.clone()),
        }
    }
}

fn module_path(source: &str, file: &str) -> Vec<String> {
    let path = file.strip_prefix(source).unwrap_or(file);
    let path = path.trim_start_matches('/').trim_end_matches(".rs");
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    if parts
        .last()
        .is_some_and(|last| ["mod", "lib"].contains(&last.as_str()))
        || parts == ["main"]
    {
        parts.pop();
    }
    parts
}

impl Module {
    fn parse(file: String, text: &str) -> Self {
        let tokens = tokens(text);
        let mut uses = Vec::new();
        let mut rest = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at].word() != Some("use") {
                rest.push(tokens[at].clone());
                at += 1;
                continue;
            }
            let length = tokens[at..].iter().position(|token| token.is(';'));
            let end = at + length.unwrap_or(tokens.len() - at);
            let is_public = rest.last().is_some_and(|token| {
                // `pub`, or the bracket of `pub(crate)`.
                token.word() == Some("pub") || token.is(')')
            });
            add_tree(&tokens[at + 1..end], &[], is_public, &mut uses);
            at = end;
        }
        Self {
            file,
            tokens: rest,
            uses,
        }
    }

    fn is_face(&self) -> bool {
        self.file.ends_with("/mod.rs") || self.file.ends_with("/lib.rs")
    }

    /// Paths in the code with at least two parts.
    fn inline_paths(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let mut path: Vec<String> = Vec::new();
        let mut is_continued = false;
        for token in self.tokens.iter().chain([&Token::Sign(';')]) {
            match token {
                Token::Colons => is_continued = true,
                Token::Word(word) if is_continued && !path.is_empty() => {
                    path.push(word.clone());
                    is_continued = false;
                }
                other => {
                    if path.len() > 1 {
                        found.push(std::mem::take(&mut path));
                    }
                    path = other.word().map(str::to_owned).into_iter().collect();
                    is_continued = false;
                }
            }
        }
        found
    }
}

/// Adds the leaves of `a::{b, c::d as e}`.
fn add_tree(tokens: &[Token], before: &[String], is_public: bool, uses: &mut Vec<Use>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Word(word) if word == "as" => {
                let name = tokens.get(at + 1).and_then(Token::word).unwrap_or("_");
                let name = name.to_owned();
                uses.push(Use {
                    name,
                    path,
                    is_public,
                });
                return;
            }
            Token::Word(word) => path.push(word.clone()),
            Token::Sign('{') => {
                for branch in branches(&tokens[at + 1..]) {
                    add_tree(branch, &path, is_public, uses);
                }
                return;
            }
            _ => {}
        }
        at += 1;
    }
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(name) = path.last().cloned()
        && path.len() > before.len().min(1)
    {
        uses.push(Use {
            name,
            path,
            is_public,
        });
    }
}

/// What the commas of a brace separate.
fn branches(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut depth, mut from, mut found) = (0_usize, 0, Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') if depth == 0 => {
                found.push(&tokens[from..at]);
                break;
            }
            Token::Sign('}') => depth -= 1,
            Token::Sign(',') if depth == 0 => {
                found.push(&tokens[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|branch| !branch.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(files: &[(&str, &str)]) -> Imports {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("src")).unwrap();
        fs::create_dir_all(root.path().join("agent/src")).unwrap();
        fs::create_dir_all(root.path().join("crates")).unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        of_workspace(root.path()).unwrap()
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn imports_follow_reexports_nested_trees_and_other_crates() {
        let imports = workspace(&[
            (
                "agent/src/lib.rs",
                "pub mod spool; mod paths; pub use spool::Entry;",
            ),
            (
                "agent/src/spool/mod.rs",
                "mod entry; pub use entry::{Entry, Other as Renamed};",
            ),
            (
                "agent/src/spool/entry.rs",
                "use crate::{paths::{self, Paths}};",
            ),
            (
                "agent/src/paths.rs",
                "fn f() { super::spool::Renamed::new() }",
            ),
            ("src/main.rs", "use cdh_agent::Entry;"),
        ]);
        let expected = Imports::from([
            pair("agent/src/spool/entry.rs", "agent/src/paths.rs"),
            pair("agent/src/paths.rs", "agent/src/spool/entry.rs"),
            pair("src/main.rs", "agent/src/spool/entry.rs"),
        ]);
        assert_eq!(imports, expected);
    }
}
