//! Webhooks: Slack, plain JSON, CloudEvents.

use std::fs;
use std::io::Read;

use serde_json::{Value, json};
use ureq::{Agent, http};

use super::Crash;
use super::delivery::{Attempt, Deliver, Trust, client, post};
use super::{WebhookConfig, WebhookFormat};

/// Maximum size of a file with a URL, in bytes.
const URL_LIMIT: u64 = 4096;

/// A webhook.
pub struct Webhook {
    config: WebhookConfig,
    name: String,
    client: Agent,
}

impl Webhook {
    /// Creates a webhook from its configuration; `number` is the name of one without a name.
    #[must_use]
    pub fn new(config: WebhookConfig, number: usize) -> Self {
        let name = config
            .name
            .clone()
            .unwrap_or_else(|| format!("webhook {number}"));
        Self {
            config,
            name,
            client: client(Trust::System),
        }
    }

    /// The file is read for each message: a mounted secret may change while the agent runs.
    fn url(&self) -> Result<String, String> {
        if let Some(url) = &self.config.url {
            return Ok(url.reveal().to_owned());
        }
        let path = self.config.url_file.clone().unwrap_or_default();
        let read = || {
            let mut text = String::new();
            fs::File::open(&path)?
                .take(URL_LIMIT)
                .read_to_string(&mut text)?;
            Ok(text.trim().to_owned())
        };
        let url = read()
            .map_err(|error: std::io::Error| format!("cannot read {}: {error}", path.display()))?;
        match url.starts_with("https://") || url.starts_with("http://") {
            true => Ok(url),
            false => Err(format!("{} contains no address", path.display())),
        }
    }
}

impl Deliver for Webhook {
    fn target(&self) -> &'static str {
        "webhook"
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn deliver(&self, crash: &Crash) -> Attempt {
        let url = match self.url() {
            Ok(url) => url,
            Err(why) => return Attempt::Later(why),
        };
        let (kind, body) = message(self.config.format, crash);
        let mut request = http::Request::builder()
            .uri(url)
            .header("content-type", kind);
        for (name, value) in &self.config.headers {
            request = request.header(name, value.reveal());
        }
        post(&self.client, request, body.to_string().into_bytes())
    }
}

/// The message and its content type.
pub(super) fn message(format: WebhookFormat, crash: &Crash) -> (&'static str, Value) {
    match format {
        WebhookFormat::Json => ("application/json", crash.json()),
        WebhookFormat::Slack => ("application/json", slack(crash)),
        WebhookFormat::CloudEvents => ("application/cloudevents+json", cloud_event(crash)),
    }
}

fn slack(crash: &Crash) -> Value {
    let mut fields = vec![("core", crash.verdict_text.clone())];
    if let Some(image) = &crash.image {
        fields.push(("image", image.clone()));
    }
    if let Some(fingerprint) = &crash.fingerprint {
        fields.push(("fingerprint", fingerprint.clone()));
    }
    fields.push(("look", format!("cdh bt {}", crash.id)));
    let fields = fields.into_iter();
    let fields: Vec<Value> = fields
        .map(|(name, text)| json!({"type": "mrkdwn", "text": format!("*{name}*\n{}", slack_text(&text))}))
        .collect();
    let headline = slack_text(&crash.headline());
    json!({
        "text": format!("New crash: {headline}"),
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": format!(":boom: *New crash*: {headline}")}},
            {"type": "section", "fields": fields},
        ],
    })
}

/// Slack interprets `<!channel>` and links in texts; these three characters start them.
fn slack_text(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.replace(['*', '`', '~'], "'")
}

fn cloud_event(crash: &Crash) -> Value {
    let subject = match &crash.pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => crash.program.clone(),
    };
    json!({
        "specversion": "1.0",
        "id": crash.id,
        "source": format!("/cdh/nodes/{}", uri_part(&crash.node)),
        "type": "io.cdh.crash.new.v1",
        "subject": subject,
        "time": crash.at,
        "datacontenttype": "application/json",
        "data": crash.json(),
    })
}

/// Escapes a part of a source, which is a URI reference.
fn uri_part(text: &str) -> String {
    let bytes = text.bytes();
    bytes
        .map(
            |byte| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            },
        )
        .collect()
}
