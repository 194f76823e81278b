//! The command line of a debugger, and the step into it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::pipeline::DebugView;
use crate::render::terminal_line;

/// A debugger with all of its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// The command line for `view`: gdb's, or LLDB's where the program is called so. `extra` comes last.
    #[must_use]
    pub fn new(program: &str, view: &DebugView, extra: &[OsString]) -> Self {
        let name = Path::new(program)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let mut arguments = if name.contains("lldb") {
            lldb(view)
        } else {
            gdb(view)
        };
        arguments.extend(extra.iter().cloned());
        Self {
            program: program.into(),
            arguments,
        }
    }

    /// Whether the program takes gdb's arguments.
    #[must_use]
    pub fn is_gdb(program: &str) -> bool {
        let name = Path::new(program).file_name().unwrap_or_default();
        name.to_string_lossy().contains("gdb")
    }

    /// The command line as a shell would take it, on one line.
    #[must_use]
    pub fn shell_line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        let quoted: Vec<String> = words.map(|word| shell_word(word)).collect();
        quoted.join(" ")
    }

    /// The program that is started.
    #[must_use]
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// The command, for those who wait for its end.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Replaces this process by the debugger, which thus owns the terminal and its signals. Returns
    /// only when that fails.
    pub fn exec(self) -> io::Error {
        self.command().exec()
    }
}

/// Auto-load is off: scripts in a crashed image's files must not run on the desk.
fn gdb(view: &DebugView) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut early = |command: OsString| {
        arguments.push(OsString::from("-iex"));
        arguments.push(command);
    };
    early("set auto-load off".into());
    early(with_path("set sysroot ", view.sysroot.as_os_str()));
    let mut debug = with_path(
        "set debug-file-directory ",
        view.debug_directory.as_os_str(),
    );
    debug.push(":/usr/lib/debug");
    early(debug);
    if view.offline {
        early("set debuginfod enabled off".into());
    }
    if !view.library_directories.is_empty() {
        let joined = view.library_directories.iter().map(|path| path.as_os_str());
        early(with_path(
            "set solib-search-path ",
            &joined.collect::<Vec<_>>().join(OsStr::new(":")),
        ));
    }
    if let Some(executable) = &view.executable {
        arguments.push(with_path("--se=", executable.as_os_str()));
    }
    arguments.push(with_path("--core=", view.core.as_os_str()));
    arguments
}

fn lldb(view: &DebugView) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-O".into()];
    arguments.push("settings set target.load-script-from-symbol-file false".into());
    arguments.push("-O".into());
    arguments.push(with_path(
        "settings set target.debug-file-search-paths ",
        view.debug_directory.as_os_str(),
    ));
    if !view.library_directories.is_empty() {
        arguments.push("-O".into());
        let mut setting = OsString::from("settings set target.exec-search-paths");
        for directory in &view.library_directories {
            setting.push(" ");
            setting.push(directory);
        }
        arguments.push(setting);
    }
    arguments.push("--core".into());
    arguments.push(view.core.clone().into());
    arguments.extend(view.executable.clone().map(OsString::from));
    arguments
}

fn with_path(before: &str, path: &OsStr) -> OsString {
    let mut text = OsString::from(before);
    text.push(path);
    text
}

fn shell_word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else if text.chars().any(char::is_control) {
        // $'…' of bash and POSIX 2024 takes the same escapes that make the line safe to show.
        format!(
            "$'{}'",
            terminal_line(&text.replace('\\', "\\\\").replace('\'', "\\'"))
        )
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn printed_command_line_can_be_pasted() {
        let view = DebugView {
            executable: Some(PathBuf::from("/case/sysroot/app/it's")),
            core: PathBuf::from("/case/core"),
            sysroot: PathBuf::from("/case/sysroot"),
            library_directories: vec![PathBuf::from("/case/sysroot/lib")],
            debug_directory: PathBuf::from("/case/sysroot/usr/lib/debug"),
            offline: false,
        };
        let line = Invocation::new("gdb", &view, &["-batch".into()]).shell_line();
        assert_eq!(
            line,
            "gdb -iex 'set auto-load off' -iex 'set sysroot /case/sysroot' \
             -iex 'set debug-file-directory /case/sysroot/usr/lib/debug:/usr/lib/debug' \
             -iex 'set solib-search-path /case/sysroot/lib' '--se=/case/sysroot/app/it'\\''s' \
             --core=/case/core -batch"
        );
    }
}
