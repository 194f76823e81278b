//! Combines layers of values, in which later ones take precedence, and records the origin of each
//! value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::check::{self, leaves};
use super::{AgentConfig, environment, ibm};

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No source sets it.
    Default,
    /// A line of the file.
    File {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// A variable that IBM's core-dump-handler knows.
    Ibm(String),
    /// A variable of our own.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Ibm(name) => write!(f, "{name} (of IBM's core-dump-handler)"),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its place: a file and line, or a variable.
    pub place: String,
    /// What.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => f.write_str(&self.text),
            place => write!(f, "{place}: {}", self.text),
        }
    }
}

/// Values by their keys, `shipping.interval`, with their origins.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    values: BTreeMap<String, (Value, Origin)>,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

/// The effective values.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: AgentConfig,
    /// A note for the operator.
    pub notes: Vec<String>,
    /// The values of each layer, as they were written.
    given: BTreeMap<String, (Value, Origin)>,
}

impl Layers {
    /// Adds a file's text.
    pub fn file(&mut self, path: &Path, text: &str) {
        let table = match toml::de::DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                self.problem(path, line, error.message().to_owned(), None);
                return;
            }
        };
        for (section, value) in table {
            let name = section.get_ref().to_string();
            if check::FOREIGN.contains(&name.as_str()) {
                continue;
            }
            let at = section.span().start;
            self.file_value(path, text, &name, at, value.get_ref());
        }
    }

    fn file_value(
        &mut self,
        path: &Path,
        text: &str,
        key: &str,
        at: usize,
        value: &toml::de::DeValue<'_>,
    ) {
        use toml::de::DeValue;
        match value {
            // Tables of the first level are sections; deeper ones that are not sections are values.
            DeValue::Table(table) if !check::is_leaf(key) => {
                if table.is_empty() {
                    self.checked(path, text, key, at, &Value::Object(Map::new()));
                }
                for (name, value) in table {
                    let key = format!("{key}.{}", name.get_ref());
                    self.file_value(path, text, &key, name.span().start, value.get_ref());
                }
            }
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                let before = self.problems.len();
                for item in items {
                    // Each key separately, so that each mistake is reported with its line.
                    for (name, value) in item.get_ref().as_table().into_iter().flatten() {
                        let mut one = Map::new();
                        one.insert(name.get_ref().to_string(), json(value.get_ref()));
                        let alone = Value::Array(vec![Value::Object(one)]);
                        self.checked(path, text, key, name.span().start, &alone);
                    }
                }
                let all = json(value);
                if self.problems.len() == before && self.checked(path, text, key, at, &all) {
                    self.put(
                        key,
                        all,
                        Origin::File {
                            path: path.to_owned(),
                            line: line_of(text, at),
                        },
                    );
                }
            }
            value => {
                let value = json(value);
                if self.checked(path, text, key, at, &value) {
                    self.put(
                        key,
                        value,
                        Origin::File {
                            path: path.to_owned(),
                            line: line_of(text, at),
                        },
                    );
                }
            }
        }
    }

    fn checked(&mut self, path: &Path, text: &str, key: &str, at: usize, value: &Value) -> bool {
        match check::value(key, value) {
            Ok(()) => true,
            Err((why, hint)) => {
                self.problem(path, line_of(text, at), why, hint);
                false
            }
        }
    }

    fn problem(&mut self, path: &Path, line: usize, text: String, hint: Option<String>) {
        let place = format!("{}:{line}", path.display());
        self.problems.push(Problem { place, text, hint });
    }

    /// Adds the variables of the environment: IBM's, then our own, which take precedence.
    pub fn environment(&mut self, variables: &BTreeMap<String, String>) {
        for (key, value, name) in ibm::values(variables, &mut self.notes) {
            self.variable(&key, value, Origin::Ibm(name));
        }
        for (key, text, name) in environment::values(variables) {
            match environment::parse(&key, &text) {
                Ok(value) => self.variable(&key, value, Origin::Environment(name)),
                Err((text, hint)) => self.problems.push(Problem {
                    place: name,
                    text,
                    hint,
                }),
            }
        }
    }

    fn variable(&mut self, key: &str, value: Value, origin: Origin) {
        match check::value(key, &value) {
            Ok(()) => self.put(key, value, origin),
            Err((text, hint)) => {
                let place = origin.to_string();
                self.problems.push(Problem { place, text, hint });
            }
        }
    }

    /// Adds a flag's value, which the command line's parser has checked.
    pub fn flag(&mut self, key: &str, value: Value, flag: &str) {
        self.put(key, value, Origin::Flag(flag.to_owned()));
    }

    fn put(&mut self, key: &str, value: Value, origin: Origin) {
        self.values.insert(key.to_owned(), (value, origin));
    }

    /// The effective configuration.
    ///
    /// # Errors
    /// If any layer contains mistakes; all are reported.
    pub fn effective(mut self) -> Result<Effective, Vec<Problem>> {
        let mut all = Value::Object(Map::new());
        for (key, (value, _)) in &self.values {
            check::insert(&mut all, key, value.clone());
        }
        let config: AgentConfig = match serde_json::from_value(all) {
            Ok(config) => config,
            Err(error) => {
                self.problems.push(Problem {
                    place: String::new(),
                    text: error.to_string(),
                    hint: None,
                });
                AgentConfig::default()
            }
        };
        self.validate(&config);
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        Ok(Effective {
            config,
            notes: self.notes,
            given: self.values,
        })
    }

    /// Mistakes in combinations of keys.
    fn validate(&mut self, config: &AgentConfig) {
        if let Err(text) = config.shipping.plan() {
            let keys = ["shipping.interval", "shipping.schedule", "shipping.mode"];
            let hint = config.shipping.interval.is_some() && config.shipping.schedule.is_some();
            let hint = hint.then(|| {
                "keep one of them: `interval = \"10m\"`, or `schedule = \"0 * * * *\"`".to_owned()
            });
            self.wrong(&keys, text, hint);
        }
        if let Err(error) = config.policy.validate() {
            self.wrong(
                &["policy.rules", "policy.scrub", "policy.environment"],
                error.to_string(),
                None,
            );
        }
        if let Err(error) = config.limits.validate() {
            let keys: Vec<String> = self
                .values
                .keys()
                .filter(|key| key.starts_with("limits."))
                .cloned()
                .collect();
            let text = error.to_string();
            let keys: Vec<&str> = keys
                .iter()
                .map(String::as_str)
                .filter(|key| text.contains(*key))
                .collect();
            self.wrong(&keys, text.clone(), None);
        }
        for (key, text) in check::whole(config) {
            self.wrong(&[key], text, None);
        }
    }

    fn wrong(&mut self, keys: &[&str], text: String, hint: Option<String>) {
        let mut places: Vec<String> = Vec::new();
        for key in keys {
            if let Some((_, origin)) = self.values.get(*key) {
                places.push(origin.to_string());
            }
        }
        let place = places.join(" and ");
        self.problems.push(Problem { place, text, hint });
    }
}

impl Effective {
    /// The origin of a key's value.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        let given = self.given.get(key);
        given.map_or(&Origin::Default, |(_, origin)| origin)
    }

    /// Every key that a file, a variable or a flag sets, with its value as written there.
    pub fn given(&self) -> impl Iterator<Item = (&str, &Value, &Origin)> {
        let given = self.given.iter();
        given.map(|(key, (value, origin))| (key.as_str(), value, origin))
    }

    /// Every key with its value as in the file, `null` if it is not set, and its origin.
    #[must_use]
    pub fn listing(&self, secrets: Secrets) -> Vec<(String, Value, &Origin)> {
        let mut config = self.config.clone();
        if secrets == Secrets::Hidden {
            for hook in &mut config.notify.webhooks {
                let hidden = || super::Secret::new(HIDDEN);
                hook.url = hook.url.as_ref().map(|_| hidden());
                for value in hook.headers.values_mut() {
                    *value = hidden();
                }
            }
        }
        let all = serde_json::to_value(config).unwrap_or_default();
        let mut values: BTreeMap<String, Value> = leaves(&all).into_iter().collect();
        for key in check::keys() {
            values.entry(key).or_insert(Value::Null);
        }
        values
            .into_iter()
            .map(|(key, value)| {
                let origin = self.origin(&key);
                (key, value, origin)
            })
            .collect()
    }
}

/// The text that replaces a secret in a listing.
pub const HIDDEN: &str = "(hidden)";

/// Whether a listing shows secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// It shows [`HIDDEN`] instead.
    Hidden,
    /// It shows them.
    Shown,
}

/// A value as TOML; `None` for `null`, which TOML does not have.
#[must_use]
pub fn toml_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        // JSON and TOML escape control characters alike, except that JSON does not escape DEL.
        Value::String(_) => Some(value.to_string().replace('\u{7f}', "\\u007f")),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(toml_text).collect();
            Some(format!("[{}]", items.join(", ")))
        }
        Value::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, value)| {
                let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                let name = match !name.is_empty() && name.bytes().all(bare) {
                    true => name.clone(),
                    false => toml_text(&Value::String(name.clone()))?,
                };
                Some(format!("{name} = {}", toml_text(value)?))
            });
            Some(format!("{{ {} }}", fields.collect::<Vec<_>>().join(", ")))
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn json(value: &toml::de::DeValue<'_>) -> Value {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or_else(|_| Value::String(number.as_str().to_owned()), Value::from)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse::<f64>();
            parsed.map_or_else(|_| Value::String(number.as_str().to_owned()), Value::from)
        }
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let fields = table.iter();
            let fields =
                fields.map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref())));
            Value::Object(fields.collect())
        }
    }
}
