//! Arguments, environment and config file become one `Settings`: the only module that looks at the environment.

use std::collections::BTreeMap;
use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cdh_agent::config::{Secret, ibm_store};
use cdh_store::StoreUrl;
use serde::Deserialize;

use crate::args::{ColorWhen, GlobalArgs, ModuleArgs};
use crate::render::Style;
use crate::report::{ExitStatus, Failure};

/// Everything that a command needs to know about its surroundings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the dumps are.
    pub store: StoreUrl,
    /// Whether `store` is the embedded directory store that nobody asked for by name.
    pub store_is_default: bool,
    /// Where cases are kept: `$XDG_CACHE_HOME/cdh`.
    pub cache: PathBuf,
    /// The spool of this node's agent, if there is one: `CDH_STATE` or `node.state`, else below /var/lib/cdh.
    pub spool: PathBuf,
    /// How standard output is styled.
    pub style: Style,
    /// Whether standard error is a terminal: progress bars and questions.
    pub interactive: bool,
    /// Where the files of modules are pulled from.
    pub images: ImageSettings,
    /// The stores that the config file names.
    pub stores: BTreeMap<String, StoreUrl>,
    /// What is known of the terminal.
    pub terminal: Terminal,
    /// Seconds between two automatic refreshes of the TUI; 0 turns them off.
    pub refresh_seconds: u64,
    /// The config file that was read, and its text.
    pub file: Option<(PathBuf, String)>,
    /// Credentials of the store that are not the usual chain's.
    pub store_keys: Option<(String, Secret)>,
    /// Who named the store.
    pub store_origin: String,
}

/// For whom settings are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Somebody who looks at dumps.
    Desk,
    /// The agent on a node, which has a file of its own and understands IBM's variables.
    Agent,
}

/// The agent's file, where none is named.
const AGENT_FILE: &str = "/etc/cdh/agent.toml";

/// The environment, as far as it is text.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Where the files of modules are pulled from, and how.
#[derive(Clone, Debug)]
pub struct ImageSettings {
    /// The image that the process ran from, where it was given by hand.
    pub image: Option<String>,
    /// An image that holds debug files.
    pub debug_image: Option<String>,
    /// Whether the network may not be used.
    pub offline: bool,
    /// Credentials of registries, besides the usual files.
    pub auth_file: Option<PathBuf>,
    /// Certificates of registries, besides the system's.
    pub ca: Option<PathBuf>,
    /// Bytes that the cache of images may take.
    pub cache_limit: u64,
}

impl ImageSettings {
    /// The same with what stands on the command line.
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

/// What is known of the terminal, for the TUI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether it takes input and shows output, and moves its cursor.
    pub capable: bool,
    /// Whether it shows what a command prints.
    pub shows_output: bool,
    /// Whether colours are wanted.
    pub colored: bool,
    /// Whether it shows more than ASCII, as far as the locale tells.
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
    /// The TUI.
    #[serde(default)]
    tui: ConfigTui,
    /// The agent's tables, which are checked by the agent's own commands, and what is none.
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

/// Tables of the agent in the same file.
const AGENT_TABLES: [&str; 9] = [
    "node",
    "capture",
    "policy",
    "limits",
    "shipping",
    "workloads",
    "metrics",
    "notify",
    "log",
];

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum StoreChoice {
    Name(String),
    Table(NamedStore),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigImages {
    debug_image: Option<String>,
    #[serde(default)]
    offline: bool,
    auth_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    /// Mebibytes that the cache may take.
    cache_mib: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigTui {
    /// Seconds between two automatic refreshes; 0 turns them off.
    refresh_seconds: Option<u64>,
}

/// Room for the files of some hundred images, which are a few dozen megabytes each.
const CACHE_MIB: u64 = 10 << 10;

/// Seconds between two automatic refreshes of the TUI, where nothing else is configured.
const REFRESH_SECONDS: u64 = 5;

/// ```toml
/// [stores.prod]
/// url = "s3://crashes/prod"
/// region = "eu-west-1"
/// ```
#[derive(Debug, Deserialize)]
struct NamedStore {
    url: String,
    /// As in the URL: `endpoint`, `region`, `path-style` …
    #[serde(flatten)]
    options: BTreeMap<String, toml::Value>,
}

impl Settings {
    /// Gathers the settings.
    ///
    /// # Errors
    /// When the config file cannot be read, or the store is not one.
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
                (find_store(name, &config)?, from.to_owned())
            }
            (None, Some(ibm), _) => {
                store_keys = ibm.keys;
                let from = "S3_BUCKET_NAME (of IBM's core-dump-handler)";
                (parse_store(&ibm.url, &config.stores)?, from.to_owned())
            }
            (None, None, Some(StoreChoice::Name(name))) if !name.is_empty() => {
                (find_store(name, &config)?, place(&file))
            }
            (None, None, Some(StoreChoice::Table(named))) => {
                (open_table(named, "store")?, place(&file))
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
        let cache = base_directory("XDG_CACHE_HOME", ".cache").join("cdh");
        let interactive = std::io::stderr().is_terminal();
        let spool = node_state(&config).join("spool");
        let images = ImageSettings {
            image: None,
            debug_image: config.images.debug_image,
            offline: config.images.offline,
            auth_file: config.images.auth_file,
            ca: config.images.ca,
            cache_limit: config.images.cache_mib.unwrap_or(CACHE_MIB) << 20,
        };
        let stores = config
            .stores
            .iter()
            .filter_map(|(name, named)| Some((name.clone(), named_location(named).ok()?)))
            .collect();
        Ok(Self {
            store,
            store_is_default,
            cache,
            spool,
            style,
            interactive,
            images,
            stores,
            terminal: facts_of_terminal(style),
            refresh_seconds: config.tui.refresh_seconds.unwrap_or(REFRESH_SECONDS),
            file,
            store_keys,
            store_origin: match store_is_default {
                true => "default".to_owned(),
                false => store_origin,
            },
        })
    }

    /// The same without leave to pull from a network.
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

    /// The same with another store: a name from the config file, or a location.
    ///
    /// # Errors
    /// When it is no store.
    pub fn with_store(&self, name: &str) -> Result<Self> {
        let store = match self.stores.get(name) {
            Some(url) => url.clone(),
            // No shell has seen it.
            None => match name.strip_prefix("~/").zip(env::home_dir()) {
                Some((rest, home)) => StoreUrl::Directory(home.join(rest)),
                None => parse_store(name, &self.stores)?,
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
    // Where nothing is said, terminals of today are UTF-8.
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

/// `$variable`, else `$HOME/fallback`, as the XDG base directory specification says; relative values are ignored.
fn base_directory(variable: &str, fallback: &str) -> PathBuf {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(fallback)))
        .unwrap_or_else(|| {
            env::temp_dir().join(format!("cdh-{}", rustix::process::getuid().as_raw()))
        })
}

/// The state directory of the agent on this machine. What the agent's file says is of interest to who may
/// read it.
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

/// The store that needs no set-up: the node's own for root, the user's own for others.
fn default_store() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/lib/cdh/store")
    } else {
        base_directory("XDG_DATA_HOME", ".local/share").join("cdh/store")
    }
}

fn read_config(
    explicit: Option<&Path>,
    role: Role,
) -> Result<(Option<(PathBuf, String)>, ConfigFile)> {
    let own = || base_directory("XDG_CONFIG_HOME", ".config").join("cdh/config.toml");
    let path = match (explicit, role) {
        (Some(path), _) => path.to_owned(),
        (None, Role::Agent) if Path::new(AGENT_FILE).exists() => AGENT_FILE.into(),
        (None, _) => own(),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {
            return Ok((None, ConfigFile::default()));
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read config file `{}`", path.display()));
        }
    };
    let config: ConfigFile = toml::from_str(&text)
        .with_context(|| format!("config file `{}` is not valid", path.display()))?;
    let unknown = |name: &&String| !AGENT_TABLES.contains(&name.as_str());
    // The agent's own check says more, and where.
    if role == Role::Desk
        && let Some(name) = config.others.keys().find(unknown)
    {
        let message = format!(
            "config file `{}` is not valid: unknown field `{name}`",
            path.display()
        );
        let hint = format!(
            "it may hold store, stores, images, tui, and the agent's {}",
            AGENT_TABLES.join(", ")
        );
        return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
    }
    Ok((Some((path, text)), config))
}

/// A value as it stands in a URL; what can be none is refused with its option.
fn option_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        other => format!("({})", other.type_str()),
    }
}

/// The location of a named store with its options.
fn named_location(named: &NamedStore) -> Result<StoreUrl, cdh_store::StoreError> {
    let url: Result<StoreUrl, _> = named.url.parse();
    named.options.iter().fold(url, |url, (option, value)| {
        url?.with_option(option, &option_text(value))
    })
}

/// The store that the config file calls by this name, else the one at this location.
fn find_store(name: &str, config: &ConfigFile) -> Result<StoreUrl> {
    let Some(named) = config.stores.get(name) else {
        return parse_store(name, &config.stores);
    };
    open_table(named, name)
}

fn open_table(named: &NamedStore, name: &str) -> Result<StoreUrl> {
    named_location(named).map_err(|error| {
        let message = format!("the store `{name}` in the config file is not valid");
        Failure::new(ExitStatus::Failure, message)
            .cause(error)
            .into()
    })
}

fn parse_store<T>(text: &str, stores: &BTreeMap<String, T>) -> Result<StoreUrl> {
    text.parse().map_err(|error: cdh_store::StoreError| {
        let known: Vec<&str> = stores.keys().map(String::as_str).collect();
        let hint = if known.is_empty() {
            "give a directory or `s3://bucket/prefix`".to_owned()
        } else {
            format!(
                "give a directory, `s3://bucket/prefix`, or one of: {}",
                known.join(", ")
            )
        };
        Failure::new(ExitStatus::Failure, format!("`{text}` is not a store"))
            .cause(error)
            .hint(hint)
            .into()
    })
}
