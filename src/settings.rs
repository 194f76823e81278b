//! Combines arguments, environment and config file into one `Settings`. Only this module reads the environment.

mod cache_directory;

use std::collections::BTreeMap;
use std::env;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cdh_agent::config::{Secret, ibm_store};
use cdh_store::{StoreError, StoreUrl, nearest};
use serde::Deserialize;

pub use self::cache_directory::CacheDirectory;
use crate::args::{ColorWhen, FileArgs, GlobalArgs, ModuleArgs};
use crate::render::Style;
use crate::report::{ExitStatus, Failure, RenderedError, rendered};

/// All settings of a command.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the dumps are.
    pub store: StoreUrl,
    /// Whether `store` is the default directory store that the user did not name.
    pub store_is_default: bool,
    /// Where cases and caches are stored: `$XDG_CACHE_HOME/cdh`.
    pub cache: CacheDirectory,
    /// The spool of this node's agent, if there is one: `CDH_STATE` or `node.state`, else below /var/lib/cdh.
    pub spool: PathBuf,
    /// How standard output is styled.
    pub style: Style,
    /// Whether standard error is a terminal, for progress bars and questions.
    pub interactive: bool,
    /// Cases in the cache that were unused for this long are deleted.
    pub case_age: Option<Duration>,
    /// Maximum bytes of all cases in the cache.
    pub case_bytes: Option<u64>,
    /// Maximum number of cases in the cache.
    pub case_count: Option<usize>,
    /// Where the files of modules are pulled from.
    pub images: ImageSettings,
    /// The stores that the config file names.
    pub stores: BTreeMap<String, StoreUrl>,
    /// What is known of the terminal.
    pub terminal: Terminal,
    /// Seconds between two automatic refreshes of the TUI; 0 turns them off.
    pub refresh_seconds: u64,
    /// The debugger that the config file names.
    debugger: Option<String>,
    /// Names of all stores in the config file, including invalid ones.
    pub store_names: Vec<String>,
    /// Mistakes in stores of the config file, including unused ones.
    pub store_problems: Vec<RenderedError>,
    /// The config file that was read, and its text.
    pub file: Option<(PathBuf, String)>,
    /// Credentials of the store that do not come from the usual chain.
    pub store_keys: Option<(String, Secret)>,
    /// Who named the store.
    pub store_origin: String,
}

/// Who the settings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A user of the workstation commands.
    Workstation,
    /// The agent on a node, which has its own file and supports IBM's variables.
    Agent,
}

/// The agent's default file.
const AGENT_FILE: &str = "/etc/cdh/agent.toml";

/// The environment variables that are valid text.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The debugger that `cdh debug` and the TUI start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebuggerChoice {
    /// Its name or path.
    pub program: String,
    /// The source of the setting: `--debugger`, `CDH_DEBUGGER`, a file; `None` for the default.
    pub origin: Option<String>,
}

/// Where the files of modules are pulled from, and how.
#[derive(Clone, Debug)]
pub struct ImageSettings {
    /// The image of the process, if the user named it.
    pub image: Option<String>,
    /// An image that holds debug files.
    pub debug_image: Option<String>,
    /// Registries that may be contacted because a dump names them: `host`, `host:port` or `*.domain`.
    pub registries: Vec<String>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Credentials of registries, besides the usual files.
    pub auth_file: Option<PathBuf>,
    /// Certificates for registries, besides the system's.
    pub ca: Option<PathBuf>,
    /// Maximum bytes of the image cache.
    pub cache_limit: u64,
    /// Files that the user points to.
    pub files: FileArgs,
}

impl ImageSettings {
    /// The same with the values of the command line.
    #[must_use]
    pub fn with(self, args: &ModuleArgs) -> Self {
        Self {
            image: args.image.clone().or(self.image),
            debug_image: args.debug_image.clone().or(self.debug_image),
            offline: args.offline || self.offline,
            auth_file: args.auth_file.clone().or(self.auth_file),
            ca: args.registry_ca.clone().or(self.ca),
            ..self
        }
    }
}

/// Properties of the terminal, for the TUI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether it accepts input, shows output and can move its cursor.
    pub capable: bool,
    /// Whether it shows the output of a command.
    pub shows_output: bool,
    /// Whether colours are wanted.
    pub colored: bool,
    /// Whether it shows more than ASCII, according to the locale.
    pub unicode: bool,
    /// `$PAGER` with its arguments.
    pub pager: Vec<String>,
}

/// `config.toml`.
#[derive(Debug, Default, Deserialize)]
struct ConfigFile {
    /// Name or location of the store to use by default, or a table as those of named stores.
    store: Option<StoreChoice>,
    /// Named stores.
    #[serde(default)]
    stores: BTreeMap<String, NamedStore>,
    /// How images are pulled.
    #[serde(default)]
    images: ConfigImages,
    /// Limits of the cache.
    #[serde(default)]
    cache: ConfigCache,
    /// The TUI.
    #[serde(default)]
    tui: ConfigTui,
    /// Program that `cdh debug` starts.
    debugger: Option<String>,
    /// The agent's tables, which the agent's own commands check, and unknown tables.
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

/// Tables of the agent in the same file.
const AGENT_TABLES: [&str; 10] = [
    "node",
    "capture",
    "collect",
    "policy",
    "limits",
    "shipping",
    "workloads",
    "metrics",
    "notify",
    "log",
];

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a store's name, its location, or a table with `url`"
)]
enum StoreChoice {
    Name(String),
    Table(NamedStore),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigImages {
    debug_image: Option<String>,
    /// Registries that dumps may name.
    #[serde(default)]
    registries: Vec<String>,
    #[serde(default)]
    offline: bool,
    auth_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    /// Maximum size of the cache in MiB.
    cache_mib: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigCache {
    /// Days after which unused cases are deleted; 0 keeps them.
    case_days: Option<u64>,
    /// Maximum mebibytes of all cases; 0 removes the limit.
    case_mib: Option<u64>,
    /// Maximum number of cases; 0 removes the limit.
    case_count: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigTui {
    /// Seconds between two automatic refreshes; 0 turns them off.
    refresh_seconds: Option<u64>,
}

/// Space for the files of some hundred images, which are a few dozen megabytes each.
const CACHE_MIB: u64 = 10 << 10;

/// Default days after which an unused case is deleted from the cache: cores hold secrets.
const CASE_DAYS: u64 = 30;

/// Default maximum size of all cases: some cores of large processes.
const CASE_MIB: u64 = 50 << 10;

/// Default maximum number of cases: more than a user looks at in [`CASE_DAYS`].
const CASE_COUNT: usize = 1_000;

/// Default seconds between two automatic refreshes of the TUI.
const REFRESH_SECONDS: u64 = 5;

/// ```toml
/// [stores.prod]
/// url = "s3://crashes/prod"
/// region = "eu-west-1"
/// ```
#[derive(Debug, Deserialize)]
#[serde(expecting = "a table such as `url = \"s3://bucket/prefix\"`")]
struct NamedStore {
    url: Option<String>,
    /// As in the URL: `endpoint`, `region`, `path-style` …
    #[serde(flatten)]
    options: BTreeMap<String, toml::Value>,
}

impl Settings {
    /// Gathers the settings.
    ///
    /// # Errors
    /// If the config file cannot be read, or the store is invalid.
    pub fn gather(args: &GlobalArgs, role: Role) -> Result<Self> {
        let (file, config) = read_config(args.config.as_deref(), role)?;
        let given = args.store.as_deref().filter(|name| !name.is_empty());
        let ibm = match role {
            Role::Agent if given.is_none() => ibm_store(&environment()),
            _ => None,
        };
        let place = |file: &Option<(PathBuf, String)>| {
            let file = file.as_ref();
            file.map_or_else(String::new, |(path, _)| path.display().to_string())
        };
        let mut store_keys = None;
        let (store, store_origin) = match (given, ibm, &config.store) {
            (Some(name), ..) => {
                let from = match env::var("CDH_STORE").is_ok_and(|value| value == name) {
                    true => "CDH_STORE",
                    false => "--store",
                };
                (find_store(name, &config, &file)?, from.to_owned())
            }
            (None, Some(ibm), _) => {
                store_keys = ibm.keys;
                let from = "S3_BUCKET_NAME (of IBM's core-dump-handler)";
                (parse_store(&ibm.url)?, from.to_owned())
            }
            (None, None, Some(StoreChoice::Name(name))) if !name.is_empty() => {
                let found = match config.stores.contains_key(name) {
                    true => find_store(name, &config, &file)?,
                    false => {
                        let url = name.parse();
                        url.map_err(|error| invalid_store(error, &["store"], &file))?
                    }
                };
                (found, place(&file))
            }
            (None, None, Some(StoreChoice::Table(named))) => {
                let table = Table {
                    keys: &["store"],
                    file: &file,
                };
                (open_table(named, table)?, place(&file))
            }
            _ => (StoreUrl::Directory(default_store()), String::new()),
        };
        let store_is_default = store_origin.is_empty();
        let terminal = std::io::stdout().is_terminal();
        let style = match args.color {
            ColorWhen::Always => Style::Colored,
            ColorWhen::Never => Style::Plain,
            ColorWhen::Auto if terminal && !is_set("NO_COLOR") && env_is_not("TERM", "dumb") => {
                Style::Colored
            }
            ColorWhen::Auto => Style::Plain,
        };
        let cache = CacheDirectory::from_environment();
        let interactive = std::io::stderr().is_terminal();
        let spool = node_state(&config).join("spool");
        let images = ImageSettings {
            image: None,
            debug_image: config.images.debug_image,
            registries: config.images.registries,
            offline: config.images.offline,
            auth_file: config.images.auth_file,
            ca: config.images.ca,
            cache_limit: config.images.cache_mib.unwrap_or(CACHE_MIB) << 20,
            files: FileArgs::default(),
        };
        let mut stores = BTreeMap::new();
        let mut store_problems = Vec::new();
        for (name, named) in &config.stores {
            let keys = &["stores", name.as_str()];
            match open_table(named, Table { keys, file: &file }) {
                Ok(url) => drop(stores.insert(name.clone(), url)),
                // The value is not a store.
                Err(error) if named.url.is_none() => return Err(error),
                Err(error) => store_problems.push(rendered(&error)),
            }
        }
        Ok(Self {
            store,
            store_is_default,
            cache,
            case_age: match config.cache.case_days.unwrap_or(CASE_DAYS) {
                0 => None,
                days => Some(Duration::from_secs(days.saturating_mul(24 * 3600))),
            },
            case_bytes: match config.cache.case_mib.unwrap_or(CASE_MIB) {
                0 => None,
                mib => Some(mib.saturating_mul(1 << 20)),
            },
            case_count: Some(config.cache.case_count.unwrap_or(CASE_COUNT))
                .filter(|count| *count > 0),
            spool,
            style,
            interactive,
            images,
            stores,
            store_problems,
            terminal: facts_of_terminal(style),
            refresh_seconds: config.tui.refresh_seconds.unwrap_or(REFRESH_SECONDS),
            debugger: config.debugger,
            store_names: config.stores.into_keys().collect(),
            file,
            store_keys,
            store_origin: match store_is_default {
                true => "default".to_owned(),
                false => store_origin,
            },
        })
    }

    /// The same, but never uses a network.
    #[must_use]
    pub fn offline(&self) -> Self {
        let images = ImageSettings {
            offline: true,
            ..self.images.clone()
        };
        Self {
            images,
            ..self.clone()
        }
    }

    /// The debugger: from the command line or `CDH_DEBUGGER` (`given`), otherwise the config file, otherwise
    /// gdb.
    #[must_use]
    pub fn debugger(&self, given: Option<&str>) -> DebuggerChoice {
        let choice = |program: &str, origin| DebuggerChoice {
            program: program.to_owned(),
            origin,
        };
        let named = |name: &&str| !name.is_empty();
        if let Some(program) = given.filter(named) {
            let is_variable = env::var("CDH_DEBUGGER").is_ok_and(|value| value == program);
            let origin = if is_variable {
                "CDH_DEBUGGER"
            } else {
                "--debugger"
            };
            return choice(program, Some(origin.to_owned()));
        }
        if let Some(program) = self.debugger.as_deref().filter(named) {
            let file = self
                .file
                .as_ref()
                .map(|(path, _)| path.display().to_string());
            return choice(program, file);
        }
        choice("gdb", None)
    }

    /// The store's location if it is a plain name: not a store of the config file, and not written as a path.
    #[must_use]
    pub fn plain_store_name(&self) -> Option<&str> {
        let StoreUrl::Directory(path) = &self.store else {
            return None;
        };
        let name = path
            .to_str()
            .filter(|name| !name.contains('/') && !name.starts_with('.'))?;
        (!self.store_is_default).then_some(name)
    }

    /// The same, if there is no directory of this name either.
    #[must_use]
    pub fn unknown_store_name(&self) -> Option<&str> {
        self.plain_store_name()
            .filter(|name| !Path::new(name).exists())
    }

    /// The store's location; for a directory, the absolute path. The agent records it for other
    /// processes.
    #[must_use]
    pub fn store_name(&self) -> String {
        match &self.store {
            StoreUrl::Directory(path) => match std::path::absolute(path) {
                Ok(path) => path.display().to_string(),
                Err(_) => path.display().to_string(),
            },
            url => url.to_string(),
        }
    }

    /// Where the config file names the store: `/etc/cdh/agent.toml at line 3, column 1`. `None` if a flag or a
    /// variable names it.
    #[must_use]
    pub fn store_place(&self) -> Option<String> {
        let (path, text) = self.file.as_ref()?;
        let shown = path.display().to_string();
        (self.store_origin == shown).then(|| {
            let at = place_in(text, key_span(text, &["store"]));
            format!("{shown}{at}")
        })
    }

    /// The configured store with the name most similar to `name`, if any.
    #[must_use]
    pub fn similar_store(&self, name: &str) -> Option<&str> {
        nearest(name, self.store_names.iter().map(String::as_str))
    }

    /// The same with another store: a name from the config file, or a location.
    ///
    /// # Errors
    /// If it is not a store.
    pub fn with_store(&self, name: &str) -> Result<Self> {
        let store = match self.stores.get(name) {
            Some(url) => url.clone(),
            // No shell has expanded it.
            None => match name.strip_prefix("~/").zip(env::home_dir()) {
                Some((rest, home)) => StoreUrl::Directory(home.join(rest)),
                None => parse_store(name)?,
            },
        };
        Ok(Self {
            store,
            store_is_default: false,
            ..self.clone()
        })
    }
}

fn facts_of_terminal(style: Style) -> Terminal {
    let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    // Without a setting, assume UTF-8, as today's terminals use it.
    let unicode = locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    let pager = env::var("PAGER")
        .ok()
        .filter(|pager| !pager.trim().is_empty());
    let pager = pager.unwrap_or_else(|| "less -R".to_owned());
    Terminal {
        capable: both && env_is_not("TERM", "dumb"),
        shows_output: std::io::stdout().is_terminal(),
        colored: style == Style::Colored,
        unicode: unicode && env_is_not("TERM", "linux"),
        pager: pager.split_whitespace().map(str::to_owned).collect(),
    }
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn env_is_not(name: &str, unwanted: &str) -> bool {
    env::var_os(name).is_none_or(|value| value != unwanted)
}

/// `$variable`, otherwise `$HOME/fallback`, as the XDG base directory specification says; relative values are
/// ignored. `None` without either: a fixed name in a shared directory could belong to another user.
fn base_directory(variable: &str, fallback: &str) -> Option<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(fallback)))
}

/// The state directory of the agent on this machine. The agent's file is used if this user can read it.
fn node_state(config: &ConfigFile) -> PathBuf {
    let in_table = |tables: &BTreeMap<String, toml::Value>| {
        let state = tables.get("node")?.get("state")?.as_str()?;
        Some(PathBuf::from(state))
    };
    let in_agent_file = || {
        let text = std::fs::read_to_string(AGENT_FILE).ok()?;
        in_table(&toml::from_str::<BTreeMap<String, toml::Value>>(&text).ok()?)
    };
    env::var_os("CDH_STATE")
        .filter(|state| !state.is_empty())
        .map(PathBuf::from)
        .or_else(|| in_table(&config.others))
        .or_else(in_agent_file)
        .unwrap_or_else(|| PathBuf::from("/var/lib/cdh"))
}

/// The default store: the user's own; for root and for users without a home directory, that of the node.
fn default_store() -> PathBuf {
    let own = match rustix::process::geteuid().is_root() {
        true => None,
        false => base_directory("XDG_DATA_HOME", ".local/share"),
    };
    own.map_or_else(
        || PathBuf::from("/var/lib/cdh/store"),
        |base| base.join("cdh/store"),
    )
}

fn read_config(
    explicit: Option<&Path>,
    role: Role,
) -> Result<(Option<(PathBuf, String)>, ConfigFile)> {
    let own = || Some(base_directory("XDG_CONFIG_HOME", ".config")?.join("cdh/config.toml"));
    let path = match (explicit, role) {
        (Some(path), _) => Some(path.to_owned()),
        (None, Role::Agent) if Path::new(AGENT_FILE).exists() => Some(AGENT_FILE.into()),
        (None, _) => own(),
    };
    let Some(path) = path else {
        return Ok((None, ConfigFile::default()));
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {
            return Ok((None, ConfigFile::default()));
        }
        Err(error) => {
            let message = format!("cannot read config file `{}`", path.display());
            let failure = Failure::new(ExitStatus::Failure, message).cause(error);
            let hint = "check `--config` and CDH_CONFIG";
            return Err(match explicit {
                Some(_) => failure.hint(hint).into(),
                None => failure.into(),
            });
        }
    };
    if role == Role::Agent
        && rustix::process::geteuid().is_root()
        && let Err(error) = cdh_agent::node::check_config_file(&path)
    {
        let message = format!("cannot trust config file `{}`", path.display());
        let hint = error.hint();
        let failure = Failure::new(ExitStatus::Failure, message).cause(error);
        return Err(hint.into_iter().fold(failure, Failure::hint).into());
    }
    let config: ConfigFile = toml::from_str(&text).map_err(|error| {
        let failure = invalid_config(&path, &text, error.span(), error.message());
        match similar_key(error.message()) {
            Some(similar) => failure.hint(format!("did you mean `{similar}`?")),
            None => failure,
        }
    })?;
    let unknown = |name: &&String| !AGENT_TABLES.contains(&name.as_str());
    // The agent's own check reports more details, with the place.
    if role == Role::Workstation
        && let Some(name) = config.others.keys().find(unknown)
    {
        let span = key_span(&text, &[name]);
        let failure = invalid_config(&path, &text, span, &format!("unknown key `{name}`"));
        let own = ["store", "stores", "images", "cache", "tui", "debugger"];
        let failure = match nearest(name, own.into_iter().chain(AGENT_TABLES)) {
            Some(similar) => failure.hint(format!("did you mean `{similar}`?")),
            None => failure,
        };
        let hint = format!(
            "valid keys are {}, and the agent's {}",
            own.join(", "),
            AGENT_TABLES.join(", ")
        );
        return Err(failure.hint(hint).into());
    }
    Ok((Some((path, text)), config))
}

/// The known key that is most similar to an unknown one, from serde's message: ``unknown field `a`, expected `b` or
/// `c` ``.
fn similar_key(said: &str) -> Option<&str> {
    let names = said.strip_prefix("unknown field `")?.split('`');
    let mut names = names.step_by(2);
    let unknown = names.next()?;
    nearest(unknown, names.filter(|name| !name.is_empty()))
}

/// ` at line 3, column 1`; empty if the place is not known.
fn place_in(text: &str, span: Option<Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else {
        return String::new();
    };
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    format!(" at line {line}, column {column}")
}

/// An error at a place in a config file: one line, as compilers print it.
fn invalid_config(path: &Path, text: &str, span: Option<Range<usize>>, problem: &str) -> Failure {
    let place = place_in(text, span);
    let message = format!("invalid config file `{}`{place}: {problem}", path.display());
    Failure::new(ExitStatus::Failure, message)
}

/// The place of a key in a file, by the names of the tables around it.
fn key_span(text: &str, keys: &[&str]) -> Option<Range<usize>> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut span = None;
    for key in keys {
        let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
        span = Some(name.span());
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    span
}

/// A table of a config file, for error messages with its place.
#[derive(Clone, Copy)]
struct Table<'t> {
    keys: &'t [&'t str],
    file: &'t Option<(PathBuf, String)>,
}

/// A value in the form for a URL; an invalid value is refused with the name of its option.
fn option_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        other => format!("({})", other.type_str()),
    }
}

/// The location of a named store with its options.
fn named_location(named: &NamedStore) -> Result<StoreUrl, StoreError> {
    let url: Result<StoreUrl, _> = named.url.as_deref().unwrap_or_default().parse();
    named.options.iter().fold(url, |url, (option, value)| {
        url?.with_option(option, &option_text(value))
    })
}

/// The store with this name in the config file, otherwise the one at this location.
fn find_store(
    name: &str,
    config: &ConfigFile,
    file: &Option<(PathBuf, String)>,
) -> Result<StoreUrl> {
    let Some(named) = config.stores.get(name) else {
        return parse_store(name);
    };
    let keys = &["stores", name];
    open_table(named, Table { keys, file })
}

fn open_table(named: &NamedStore, table: Table<'_>) -> Result<StoreUrl> {
    let at = |key: &str| -> Vec<String> {
        let keys = table.keys.iter().copied().chain([key]);
        keys.map(str::to_owned).collect()
    };
    if named.url.is_none() {
        let similar = nearest("url", named.options.keys().map(String::as_str));
        let keys = similar.map_or_else(Vec::new, at);
        let keys: Vec<&str> = match similar {
            Some(_) => keys.iter().map(String::as_str).collect(),
            None => table.keys.to_vec(),
        };
        let Some((path, text)) = table.file else {
            return Err(anyhow::anyhow!("a store without `url`"));
        };
        let failure = invalid_config(path, text, key_span(text, &keys), "a store needs `url`");
        let failure = match similar {
            Some(similar) => failure.hint(format!("did you mean `url` instead of `{similar}`?")),
            None => failure,
        };
        return Err(failure.into());
    }
    named_location(named).map_err(|error| {
        // Errors about an option begin with its name.
        let option = match &error {
            StoreError::Url { text, .. } => text.split('=').next().unwrap_or_default(),
            StoreError::UnknownOption { option, .. } => option,
            _ => "url",
        };
        let option = match named.options.contains_key(option) {
            true => option,
            false => "url",
        };
        let keys = at(option);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        invalid_store(error, &keys, table.file)
    })
}

/// An error about an invalid store of the config file, at the responsible key.
fn invalid_store(
    error: StoreError,
    keys: &[&str],
    file: &Option<(PathBuf, String)>,
) -> anyhow::Error {
    let Some((path, text)) = file else {
        return error.into();
    };
    let failure = invalid_config(path, text, key_span(text, keys), &error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    }
}

fn parse_store(text: &str) -> Result<StoreUrl> {
    text.parse().map_err(|error: StoreError| {
        let usual =
            "give a directory, `s3://bucket/prefix`, or the name of a store in the config file";
        let hint = match &error {
            StoreError::UnknownOption { .. } => error.hint(),
            _ => None,
        };
        Failure::new(ExitStatus::Failure, error.to_string())
            .hint(hint.unwrap_or(usual.into()))
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_errors_name_line_and_column() {
        let text = "# stores\n[stores.prod]\nurl = \"s3://x\"\n  regoin = 1\n";
        let span = key_span(text, &["stores", "prod", "regoin"]);
        let failure = invalid_config(Path::new("/c.toml"), text, span, "x");
        assert_eq!(
            failure.to_string(),
            "invalid config file `/c.toml` at line 4, column 3: x"
        );
        assert_eq!(key_span(text, &["stores", "dev"]), None);
    }

    #[test]
    fn documented_defaults_of_the_workstation_are_these() {
        let page = include_str!("../docs/configuration.md");
        for (key, value) in [
            ("images.cache_mib", CACHE_MIB),
            ("cache.case_days", CASE_DAYS),
            ("tui.refresh_seconds", REFRESH_SECONDS),
        ] {
            assert!(page.contains(&format!("| `{key}` | `{value}` |")), "{key}");
        }
    }

    #[test]
    fn similar_key_is_read_from_what_serde_says() {
        let said = "unknown field `offlin`, expected one of `debug_image`, `offline`, `ca`";
        assert_eq!(similar_key(said), Some("offline"));
        assert_eq!(
            similar_key("unknown field `x`, expected `refresh_seconds`"),
            None
        );
        assert_eq!(similar_key("missing field `url`"), None);
    }
}
