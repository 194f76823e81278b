//! Arguments, environment and config file become one `Settings`: the only module that looks at the environment.

use std::collections::BTreeMap;
use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cdh_store::StoreUrl;
use serde::Deserialize;

use crate::args::{ColorWhen, GlobalArgs};
use crate::render::Style;
use crate::report::{ExitStatus, Failure};

/// Everything that a command needs to know about its surroundings.
#[derive(Debug)]
pub struct Settings {
    /// Where the dumps are.
    pub store: StoreUrl,
    /// Whether `store` is the embedded directory store that nobody asked for by name.
    pub store_is_default: bool,
    /// Where cases are kept: `$XDG_CACHE_HOME/cdh`.
    pub cache: PathBuf,
    /// How standard output is styled.
    pub style: Style,
    /// Whether standard error is a terminal: progress bars and questions.
    pub interactive: bool,
}

/// `config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    /// Name or location of the store to use by default.
    store: Option<String>,
    /// Named stores.
    #[serde(default)]
    stores: BTreeMap<String, NamedStore>,
}

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
    pub fn gather(args: &GlobalArgs) -> Result<Self> {
        let config = read_config(args.config.as_deref())?;
        let named = args
            .store
            .as_deref()
            .or(config.store.as_deref())
            .filter(|name| !name.is_empty());
        let (store, store_is_default) = match named {
            Some(name) => (parse_store(name, &config)?, false),
            None => (StoreUrl::Directory(default_store()), true),
        };
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
        Ok(Self {
            store,
            store_is_default,
            cache,
            style,
            interactive,
        })
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

/// The store that needs no set-up: the node's own for root, the user's own for others.
fn default_store() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/lib/cdh/store")
    } else {
        base_directory("XDG_DATA_HOME", ".local/share").join("cdh/store")
    }
}

fn read_config(explicit: Option<&Path>) -> Result<ConfigFile> {
    let path = explicit.map_or_else(
        || base_directory("XDG_CONFIG_HOME", ".config").join("cdh/config.toml"),
        Path::to_owned,
    );
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {
            return Ok(ConfigFile::default());
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read config file `{}`", path.display()));
        }
    };
    toml::from_str(&text).with_context(|| format!("config file `{}` is not valid", path.display()))
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

fn parse_store(name: &str, config: &ConfigFile) -> Result<StoreUrl> {
    let named = config.stores.get(name);
    let parsed = match named {
        None => name.parse(),
        Some(NamedStore { url, options }) => {
            let url: Result<StoreUrl, _> = url.parse();
            options.iter().fold(url, |url, (option, value)| {
                url?.with_option(option, &option_text(value))
            })
        }
    };
    parsed.map_err(|error: cdh_store::StoreError| {
        if named.is_some() {
            let message = format!("the store `{name}` in the config file is not valid");
            return Failure::new(ExitStatus::Failure, message)
                .cause(error)
                .into();
        }
        let known: Vec<&str> = config.stores.keys().map(String::as_str).collect();
        let hint = if known.is_empty() {
            "give a directory or `s3://bucket/prefix`".to_owned()
        } else {
            format!(
                "give a directory, `s3://bucket/prefix`, or one of: {}",
                known.join(", ")
            )
        };
        Failure::new(ExitStatus::Failure, format!("`{name}` is not a store"))
            .cause(error)
            .hint(hint)
            .into()
    })
}
