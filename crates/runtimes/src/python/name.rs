//! What fingerprints call Python functions: the same in all versions and wherever the files are.

use super::Interpreter;
use super::object::{NAME, PATH};

/// Marks of functions that the compiler makes of expressions: they count as the function around them.
const GENERATED: [&str; 5] = [
    "<lambda>",
    "<listcomp>",
    "<dictcomp>",
    "<setcomp>",
    "<genexpr>",
];

impl Interpreter<'_> {
    /// `module.function` of the frame at `at`. `None` for functions of the standard library, and for generated ones
    /// whose outer function is not known.
    pub(super) fn counted_name(&self, at: u64, file: &str, qualified: &str) -> Option<String> {
        if is_standard_library(file) {
            return None;
        }
        let function = normalized(qualified)?;
        let globals = self.process.field(at, self.layout.frame.globals)?;
        let name = self
            .item(globals, "__name__")
            .and_then(|name| self.text(name, NAME));
        let module = match name {
            Some(name) if name != "__main__" => name,
            // The program itself, by its file.
            _ => file_stem(file).chars().take(PATH).collect(),
        };
        Some(format!("{module}.{function}"))
    }
}

/// `outer.<locals>.inner.<locals>.<lambda>` is `outer.inner`.
fn normalized(qualified: &str) -> Option<String> {
    let parts = qualified.split('.').filter(|part| *part != "<locals>");
    let parts: Vec<&str> = parts.filter(|part| !GENERATED.contains(part)).collect();
    (!parts.is_empty()).then(|| parts.join("."))
}

fn file_stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".py").unwrap_or(name)
}

/// `/usr/lib/python3.11/threading.py`, `/usr/lib/python311.zip/…`, `<frozen runpy>`; not what pip installs.
fn is_standard_library(file: &str) -> bool {
    let installed = ["/site-packages/", "/dist-packages/"];
    let directory = file.split_once("/lib/python3").map(|(_, rest)| rest);
    let is_below = directory.is_some_and(|rest| rest.contains('/'));
    file.starts_with("<frozen ") || (is_below && !installed.iter().any(|part| file.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_functions_count_as_the_function_around_them() {
        let table = [
            ("f", Some("f")),
            ("Class.method", Some("Class.method")),
            ("outer.<locals>.inner", Some("outer.inner")),
            ("outer.<locals>.<listcomp>.<genexpr>", Some("outer")),
            ("Class.method.<locals>.<lambda>", Some("Class.method")),
            ("<lambda>", None),
            ("<module>", Some("<module>")),
        ];
        for (qualified, expected) in table {
            assert_eq!(normalized(qualified).as_deref(), expected, "{qualified}");
        }
    }

    #[test]
    fn standard_library_is_told_from_installed_packages() {
        let standard = [
            "/usr/lib/python3.11/threading.py",
            "/opt/py/lib/python3.13/asyncio/events.py",
            "/usr/lib/python311.zip/runpy.py",
            "<frozen importlib._bootstrap>",
        ];
        let other = [
            "/usr/lib/python3/dist-packages/yaml/loader.py",
            "/venv/lib/python3.12/site-packages/app/main.py",
            "/srv/app.py",
            "<string>",
        ];
        for file in standard {
            assert!(is_standard_library(file), "{file}");
        }
        for file in other {
            assert!(!is_standard_library(file), "{file}");
        }
    }
}
