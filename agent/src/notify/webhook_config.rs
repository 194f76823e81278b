//! One webhook of the configuration, `[[notify.webhooks]]`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A text that no log and no listing shows.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for its recipient.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The format of a webhook's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// One JSON object with the facts of the crash.
    #[default]
    Json,
    /// A message for Slack's incoming webhooks, and for services that accept their format.
    Slack,
    /// A CloudEvent 1.0, structured.
    CloudEvents,
}

/// One of `[[notify.webhooks]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name in the log.
    pub name: Option<String>,
    /// Its URL. Any program that knows the URL of a Slack webhook may post there, so it is a
    /// secret.
    pub url: Option<Secret>,
    /// A file that contains the URL instead.
    pub url_file: Option<PathBuf>,
    /// What it is sent.
    pub format: WebhookFormat,
    /// Header fields, such as `Authorization`.
    pub headers: BTreeMap<String, Secret>,
}
