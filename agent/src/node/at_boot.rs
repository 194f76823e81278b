//! Finds what installs the handler again after a reboot, which resets `core_pattern`: a systemd unit,
//! or a boot script. Read-only.
//!
//! Units are found by their commands, not by their names. If two files have the same name, the
//! directory that systemd searches first takes precedence. A unit is enabled if a `.wants` or
//! `.requires` directory names it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Directories of units, in order of precedence.
const UNITS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// Other files that run at boot, or by cron.
const SCRIPTS: [&str; 8] = [
    "etc/rc.local",
    "etc/rc.d/rc.local",
    "etc/init.d",
    "etc/local.d",
    "etc/crontab",
    "etc/cron.d",
    "var/spool/cron/crontabs",
    "var/spool/cron",
];
/// Maximum bytes read of a unit or script.
const LIMIT: u64 = 256 << 10;

/// What installs the handler after a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtBoot {
    /// An enabled unit that installs.
    Unit {
        /// `cdh-agent.service`.
        name: String,
    },
    /// A unit that would install, but is not enabled.
    Disabled {
        /// Its name.
        name: String,
    },
    /// A unit that ships dumps but does not install.
    ShipsOnly {
        /// Its name.
        name: String,
    },
    /// A script that installs.
    Script {
        /// Which.
        path: PathBuf,
    },
    /// Nothing.
    Nothing {
        /// Whether systemd runs here.
        has_systemd: bool,
    },
}

/// The effect of a command line on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Does {
    Ships,
    Installs,
}

/// Searches below `root`. `manages` is whether the configuration lets `cdh agent run` install the
/// handler.
#[must_use]
pub fn at_boot(root: &Path, manages: bool) -> AtBoot {
    let enabled = enabled_units(root);
    let is_enabled = |name: &str| enabled.iter().any(|known| known.to_str() == Some(name));
    let (mut disabled, mut ships) = (None, None);
    for (name, text) in units(root) {
        let does = exec_lines(&text).filter_map(|line| deed(&line, manages || sets_manage(&text)));
        match does.max() {
            Some(Does::Installs) if is_enabled(&name) => return AtBoot::Unit { name },
            Some(Does::Installs) => disabled = disabled.or(Some(name)),
            Some(Does::Ships) => ships = ships.or(Some(name)),
            None => {}
        }
    }
    if let Some(path) = script(root, manages) {
        return AtBoot::Script { path };
    }
    match (disabled, ships) {
        (Some(name), _) => AtBoot::Disabled { name },
        (None, Some(name)) => AtBoot::ShipsOnly { name },
        (None, None) => AtBoot::Nothing {
            has_systemd: root.join("run/systemd/system").is_dir(),
        },
    }
}

/// Every service with its text and that of its drop-ins.
fn units(root: &Path) -> BTreeMap<String, String> {
    let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in UNITS.iter().flat_map(|place| files(&root.join(place))) {
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && name.ends_with(".service")
        {
            paths.entry(name.to_owned()).or_insert(path);
        }
    }
    let with_drop_ins = |(name, path): (String, PathBuf)| {
        let mut text = text_of(&path, root);
        for place in UNITS {
            for drop_in in files(&root.join(place).join(format!("{name}.d"))) {
                text.push('\n');
                text.push_str(&text_of(&drop_in, root));
            }
        }
        (name, text)
    };
    paths.into_iter().map(with_drop_ins).collect()
}

/// Names in any `.wants` or `.requires` directory.
fn enabled_units(root: &Path) -> Vec<OsString> {
    let places = UNITS.iter().flat_map(|place| files(&root.join(place)));
    let wants = places.filter(|path| {
        path.extension()
            .is_some_and(|end| end == "wants" || end == "requires")
    });
    wants
        .flat_map(|place| files(&place))
        .filter_map(|path| path.file_name().map(OsString::from))
        .collect()
}

/// Commands of a unit, each with its continuation lines.
fn exec_lines(text: &str) -> impl Iterator<Item = String> {
    let joined = text.replace("\\\n", " ");
    let lines: Vec<String> = joined
        .lines()
        .filter_map(|line| {
            let (key, command) = line.trim().split_once('=')?;
            ["ExecStart", "ExecStartPre", "ExecStartPost"]
                .contains(&key.trim())
                .then(|| command.to_owned())
        })
        .collect();
    lines.into_iter()
}

/// Whether a unit's environment sets `node.manage = true`.
fn sets_manage(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    lines.any(|line| line.starts_with("Environment=") && line.contains("CDH_NODE_MANAGE=true"))
}

/// The effect of this command line, if it runs the agent.
fn deed(line: &str, manages: bool) -> Option<Does> {
    let is_end = |letter: char| letter.is_whitespace() || "'\";&|".contains(letter);
    let mut words = line.split(is_end).filter(|word| !word.is_empty());
    words.find(|word| {
        Path::new(word.trim_start_matches(['-', '@', '+', '!', ':'])).ends_with("cdh")
    })?;
    words.find(|word| *word == "agent")?;
    match words.next()? {
        "install" => Some(Does::Installs),
        "run" if manages || words.any(|word| word == "--manage-node") => Some(Does::Installs),
        "run" | "sweep" => Some(Does::Ships),
        _ => None,
    }
}

fn script(root: &Path, manages: bool) -> Option<PathBuf> {
    let places = SCRIPTS.iter().map(|place| root.join(place));
    let scripts = places.flat_map(|place| match place.is_dir() {
        true => files(&place),
        false => vec![place],
    });
    { scripts }.find(|path| {
        let text = text_of(path, root).replace("\\\n", " ");
        let mut lines = text.lines().filter(|line| !line.trim().starts_with('#'));
        lines.any(|line| deed(line, manages) == Some(Does::Installs))
    })
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = items.map(|item| item.path()).collect();
    paths.sort();
    paths
}

/// The text of a file. Links are followed below `root`, because they are relative to the node's root.
fn text_of(path: &Path, root: &Path) -> String {
    let target = match fs::read_link(path) {
        Ok(link) if link.is_absolute() => root.join(link.strip_prefix("/").unwrap_or(&link)),
        _ => path.to_owned(),
    };
    let mut bytes = Vec::new();
    if fs::metadata(&target).is_ok_and(|metadata| metadata.is_file())
        && let Ok(file) = fs::File::open(&target)
    {
        let _ = file.take(LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn enable(&self, name: &str) {
            let wants = self
                .0
                .path()
                .join("etc/systemd/system/multi-user.target.wants");
            fs::create_dir_all(&wants).unwrap();
            let unit = format!("/etc/systemd/system/{name}");
            std::os::unix::fs::symlink(unit, wants.join(name)).unwrap();
        }

        fn found(&self) -> AtBoot {
            at_boot(self.0.path(), false)
        }
    }

    #[test]
    fn unit_that_installs_counts_when_it_is_enabled() {
        let root = Root::new();
        assert_eq!(root.found(), AtBoot::Nothing { has_systemd: false });
        fs::create_dir_all(root.0.path().join("run/systemd/system")).unwrap();
        assert_eq!(root.found(), AtBoot::Nothing { has_systemd: true });
        root.write(
            "etc/systemd/system/crashes.service",
            "[Service]\nExecStart=/usr/local/bin/cdh --store s3://x \\\n  agent run \\\n  --manage-node\n",
        );
        let name = "crashes.service".to_owned();
        assert_eq!(root.found(), AtBoot::Disabled { name: name.clone() });
        root.enable("crashes.service");
        assert_eq!(root.found(), AtBoot::Unit { name });
    }

    #[test]
    fn unit_without_manage_node_does_not_install() {
        let root = Root::new();
        let unit = "[Service]\nExecStart=-/opt/cdh/cdh agent run\n";
        root.write("usr/lib/systemd/system/cdh.service", unit);
        root.enable("cdh.service");
        let name = "cdh.service".to_owned();
        assert_eq!(root.found(), AtBoot::ShipsOnly { name: name.clone() });
        assert_eq!(
            at_boot(root.0.path(), true),
            AtBoot::Unit { name: name.clone() }
        );
        let drop_in = "[Service]\nEnvironment=CDH_NODE_MANAGE=true\n";
        root.write("etc/systemd/system/cdh.service.d/manage.conf", drop_in);
        assert_eq!(root.found(), AtBoot::Unit { name });
        // A mask in /etc hides the unit.
        let mask = root.0.path().join("etc/systemd/system/cdh.service");
        std::os::unix::fs::symlink("/dev/null", mask).unwrap();
        fs::remove_dir_all(root.0.path().join("etc/systemd/system/cdh.service.d")).unwrap();
        assert_eq!(root.found(), AtBoot::Nothing { has_systemd: false });
    }

    #[test]
    fn install_by_a_shell_a_script_or_cron_is_found() {
        for (path, text) in [
            ("etc/rc.local", "#!/bin/sh\n/usr/bin/cdh agent install\n"),
            (
                "etc/cron.d/cdh",
                "@reboot root cdh --config /x agent install --mode auto\n",
            ),
            (
                "etc/init.d/cdh",
                "start() { cdh agent run --manage-node & }\n",
            ),
        ] {
            let root = Root::new();
            root.write(path, text);
            let path = root.0.path().join(path);
            assert_eq!(root.found(), AtBoot::Script { path });
        }
        let root = Root::new();
        root.write(
            "etc/rc.local",
            "# cdh agent install\ncdh agent status\ncdhx agent install\n",
        );
        assert!(matches!(root.found(), AtBoot::Nothing { .. }));
        let unit =
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exec /usr/bin/cdh agent install'\n";
        root.write("etc/systemd/system/x.service", unit);
        root.enable("x.service");
        let name = "x.service".to_owned();
        assert_eq!(root.found(), AtBoot::Unit { name });
    }
}
