//! Builds the command line of a debugger, starts it, and explains how to install it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::pipeline::DebugView;
use crate::render::{shell_word, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::DebuggerChoice;

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
        let quoted: Vec<String> = words.map(shell_word).collect();
        quoted.join(" ")
    }

    /// The program that is started.
    #[must_use]
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// The command, for callers that wait for its end.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Replaces this process by the debugger, which then owns the terminal and its signals. Returns
    /// only on failure.
    pub fn exec(self) -> io::Error {
        self.command().exec()
    }
}

/// Auto-load is off: scripts in a crashed image's files must not run on the workstation.
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
    let main = match view.placed.is_empty() {
        true => view.executable.as_ref(),
        false => view.started.as_ref(),
    };
    if let Some(main) = main {
        arguments.push(with_path("--se=", main.as_os_str()));
    }
    arguments.push(with_path("--core=", view.core.as_os_str()));
    // gdb would ask for confirmation before it adds a file.
    let is_asked = !view.placed.is_empty();
    let mut late = |command: OsString| arguments.extend(["-ex".into(), command]);
    if is_asked {
        late("set confirm off".into());
    }
    for (file, bias) in &view.placed {
        let mut command = with_path("add-symbol-file ", &gdb_word(file));
        command.push(format!(" -o {bias:#x}"));
        late(command);
    }
    if is_asked {
        late("set confirm on".into());
    }
    arguments
}

/// A path as one argument of a gdb command. In gdb, a backslash quotes the next character.
fn gdb_word(path: &Path) -> OsString {
    let mut word = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_whitespace() || b"'\"\\".contains(byte) {
            word.push(b'\\');
        }
        word.push(*byte);
    }
    OsString::from_vec(word)
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

/// Checks that the debugger can be started, before a dump is downloaded for it.
///
/// # Errors
/// If there is no such program on the path; the error names the command that installs it.
pub fn require(choice: &DebuggerChoice) -> Result<(), Failure> {
    match is_installed(&choice.program) {
        true => Ok(()),
        false => Err(not_installed(choice, &os_release())),
    }
}

/// The gdb that reads cores of all machines, if a distribution packages it separately.
const MULTIARCH: &str = "gdb-multiarch";

/// The debugger for a core of `machine` (`uname -m`). This machine's gdb cannot open cores of another
/// machine, unless the user chose it.
#[must_use]
pub fn for_machine(choice: DebuggerChoice, machine: &str) -> DebuggerChoice {
    let is_needed = choice.origin.is_none() && !is_native(machine);
    let is_there = || is_installed(MULTIARCH) || !is_installed(&choice.program);
    match is_needed && is_there() {
        true => DebuggerChoice {
            program: MULTIARCH.to_owned(),
            ..choice
        },
        false => choice,
    }
}

/// The warning before a core of `machine` is opened with this machine's gdb.
#[must_use]
pub fn doubt(choice: &DebuggerChoice, machine: &str) -> Vec<anyhow::Error> {
    if choice.program != "gdb" || is_native(machine) {
        return Vec::new();
    }
    // Without such a package, the normal gdb reads all machines.
    let manager = PackageManager::of(&os_release());
    let install = manager.command(MULTIARCH);
    let remark = match manager {
        PackageManager::Dnf => return Vec::new(),
        _ => format!(
            "gdb of this machine may not read cores of {machine}: install {MULTIARCH}: {install}"
        ),
    };
    vec![anyhow::anyhow!("{}", terminal_line(&remark))]
}

/// Whether gdb of this machine reads cores of `machine`.
fn is_native(machine: &str) -> bool {
    let native = env::consts::ARCH;
    let also: &[&str] = match native {
        "x86_64" => &["i386", "x32"],
        "aarch64" => &["arm"],
        _ => &[],
    };
    machine.is_empty() || machine == native || also.contains(&machine)
}

fn is_installed(program: &str) -> bool {
    let is_program = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return is_program(Path::new(program));
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|path| is_program(&path.join(program)))
}

fn not_installed(choice: &DebuggerChoice, os_release: &str) -> Failure {
    let shown = terminal_line(&choice.program);
    let origin = match &choice.origin {
        Some(origin) => format!(" (from {origin})"),
        None => String::new(),
    };
    let message = format!("cannot start debugger `{shown}`{origin}: program not found");
    let failure = Failure::new(ExitStatus::Failure, message);
    let manager = PackageManager::of(os_release);
    let failure = match manager.package(&choice.program) {
        Some(package) => failure.hint(format!("install it: {}", manager.command(&package))),
        None if choice.program.contains('/') => failure.hint("check the path"),
        None => failure.hint("check the name: cdh starts gdb and LLDB"),
    };
    match choice.program == "gdb" {
        true => failure.hint("or use another debugger: `--debugger lldb`"),
        false => failure.hint(format!(
            "or use gdb ({}): `--debugger gdb`",
            manager.command("gdb")
        )),
    }
}

/// `os-release(5)`.
fn os_release() -> String {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default()
}

/// How a distribution installs packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PackageManager {
    Apt,
    Dnf,
    Apk,
    Zypper,
    Pacman,
    Unknown,
}

impl PackageManager {
    /// By `ID`, then by the similar distributions in `ID_LIKE`.
    fn of(os_release: &str) -> Self {
        let value = |name: &str| {
            let line = |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned());
            let value = os_release.lines().find_map(line).unwrap_or_default();
            value.trim_matches(['"', '\'']).to_ascii_lowercase()
        };
        let (id, like) = (value("ID"), value("ID_LIKE"));
        let known = |id: &str| match id {
            "debian" | "ubuntu" => Some(Self::Apt),
            "fedora" | "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "amzn" => Some(Self::Dnf),
            "alpine" | "wolfi" => Some(Self::Apk),
            "suse" | "opensuse" | "sles" => Some(Self::Zypper),
            "arch" => Some(Self::Pacman),
            _ => None,
        };
        std::iter::once(id.as_str())
            .chain(like.split_whitespace())
            .find_map(known)
            .unwrap_or(Self::Unknown)
    }

    /// The package that has this debugger.
    fn package(self, program: &str) -> Option<String> {
        let is_version = |version: &str| {
            !version.is_empty() && version.chars().all(|c| c.is_ascii_digit() || c == '.')
        };
        let package = match program {
            "gdb" | "cgdb" | "gdb-multiarch" => program,
            "rust-gdb" | "rust-lldb" => match self {
                Self::Apt => program,
                _ => "rust",
            },
            "lldb" => program,
            "dlv" => "delve",
            _ => match program
                .strip_prefix("lldb-")
                .filter(|version| is_version(version))?
            {
                _ if self == Self::Apt => program,
                _ => "lldb",
            },
        };
        Some(package.to_owned())
    }

    /// The command that installs a package.
    fn command(self, package: &str) -> String {
        match self {
            Self::Apt => format!("`apt install {package}`"),
            Self::Dnf => format!("`dnf install {package}`"),
            Self::Apk => format!("`apk add {package}`"),
            Self::Zypper => format!("`zypper install {package}`"),
            Self::Pacman => format!("`pacman -S {package}`"),
            Self::Unknown => {
                format!("`apt install {package}`, `dnf install {package}` or `apk add {package}`")
            }
        }
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
            started: None,
            placed: Vec::new(),
            core: PathBuf::from("/case/core"),
            sysroot: PathBuf::from("/case/sysroot"),
            library_directories: vec![PathBuf::from("/case/sysroot/lib")],
            debug_directory: PathBuf::from("/case/sysroot/usr/lib/debug"),
            offline: false,
            in_use: None,
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

    #[test]
    fn gdb_gets_a_program_of_the_loader_at_its_base() {
        let view = DebugView {
            executable: Some(PathBuf::from("/case/sysroot/my app")),
            started: Some(PathBuf::from("/case/sysroot/lib/ld.so")),
            placed: vec![(PathBuf::from("/case/sysroot/my app"), 0x7f00_0000_1000)],
            core: PathBuf::from("/case/core"),
            sysroot: PathBuf::from("/case/sysroot"),
            library_directories: Vec::new(),
            debug_directory: PathBuf::from("/case/sysroot/usr/lib/debug"),
            offline: false,
            in_use: None,
        };
        let line = Invocation::new("gdb", &view, &["-batch".into()]).shell_line();
        let expected = "--se=/case/sysroot/lib/ld.so --core=/case/core -ex 'set confirm off' \
                        -ex 'add-symbol-file /case/sysroot/my\\ app -o 0x7f0000001000' \
                        -ex 'set confirm on' -batch";
        assert!(line.ends_with(expected), "{line}");
    }

    #[test]
    fn core_of_another_machine_gets_gdb_multiarch_unless_a_debugger_was_named() {
        let choice = |program: &str, origin: Option<&str>| DebuggerChoice {
            program: program.to_owned(),
            origin: origin.map(str::to_owned),
        };
        let chosen = |choice, machine| for_machine(choice, machine).program;
        assert_eq!(chosen(choice("gdb", None), env::consts::ARCH), "gdb");
        assert_eq!(chosen(choice("gdb", None), ""), "gdb");
        assert_eq!(chosen(choice("no-such-gdb", None), "riscv64"), MULTIARCH);
        assert_eq!(
            chosen(choice("lldb", Some("--debugger")), "riscv64"),
            "lldb"
        );
    }

    #[test]
    fn missing_debugger_names_the_package_of_the_distribution() {
        let table = [
            ("ID=debian\n", "lldb-19", "apt install lldb-19"),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                "gdb",
                "apt install gdb",
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                "lldb-19",
                "dnf install lldb",
            ),
            ("ID=alpine\n", "gdb", "apk add gdb"),
            (
                "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\n",
                "lldb",
                "zypper install lldb",
            ),
            ("ID=arch\n", "dlv", "pacman -S delve"),
            (
                "",
                "gdb",
                "apt install gdb`, `dnf install gdb` or `apk add gdb",
            ),
            ("ID=debian\n", "no-such", "check the name"),
            ("ID=debian\n", "/opt/x/gdb", "check the path"),
        ];
        for (os_release, program, hint) in table {
            let choice = DebuggerChoice {
                program: program.to_owned(),
                origin: Some("CDH_DEBUGGER".to_owned()),
            };
            let failure = not_installed(&choice, os_release);
            assert!(
                failure.to_string().contains("(from CDH_DEBUGGER)"),
                "{failure}"
            );
            let shown = crate::report::rendered(&failure.into());
            assert!(
                shown.hints[0].contains(hint),
                "{os_release} {program}: {:?}",
                shown.hints
            );
        }
    }
}
