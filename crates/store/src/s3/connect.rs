//! Creates a client from a store's options: credentials, region, endpoint, trust, proxy, timeouts.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_types::service_config::ServiceConfigKey;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::endpoint::Endpoint;
use super::profile;
use crate::{S3Keys, StoreError};

/// Connect timeout: a machine that does not accept the connection within this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of one request, including the body. A part of 16 MiB needs 60 KB/s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);
/// Attempts per request. Callers have their own retries.
const ATTEMPTS: u32 = 3;
/// Timeout of a body that makes no progress.
const STALL_GRACE: Duration = Duration::from_secs(20);
/// Default region for private servers; most ignore it.
const ANY_REGION: &str = "us-east-1";

/// The options of a store's URL, typed.
#[derive(Clone, Debug, Default)]
pub(super) struct S3Options {
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) path_style: Option<bool>,
    pub(super) ca: Option<String>,
    pub(super) sse: Option<String>,
    pub(super) kms_key: Option<String>,
    pub(super) storage_class: Option<String>,
    /// In the format of a query: `team=core&stage=prod`.
    pub(super) tagging: Option<String>,
    pub(super) timeout: Option<Duration>,
}

impl S3Options {
    /// From a URL's options.
    ///
    /// # Errors
    /// [`StoreError::Url`] for an invalid value.
    pub(super) fn parse(options: &BTreeMap<String, String>) -> Result<Self, StoreError> {
        let text = |name: &str| options.get(name).filter(|value| !value.is_empty()).cloned();
        let bad = |name: &str, problem| StoreError::Url {
            text: format!("{name}={}", text(name).unwrap_or_default()),
            problem,
        };
        let path_style = match text("path-style").as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(bad("path-style", "expected `true` or `false`")),
        };
        let timeout = match text("timeout").map(|value| value.parse::<u64>()) {
            None => None,
            Some(Ok(seconds @ 1..=86_400)) => Some(Duration::from_secs(seconds)),
            Some(_) => return Err(bad("timeout", "expected a number of seconds such as `30`")),
        };
        let endpoint = text("endpoint");
        if let Some(endpoint) = &endpoint {
            Endpoint::parse(endpoint).map_err(|problem| bad("endpoint", problem))?;
        }
        let sse = match text("sse").as_deref() {
            Some("s3" | "AES256") => Some("AES256".to_owned()),
            Some("kms" | "aws:kms") => Some("aws:kms".to_owned()),
            None if options.contains_key("kms-key") => Some("aws:kms".to_owned()),
            None => None,
            Some(_) => return Err(bad("sse", "expected `s3` or `kms`")),
        };
        Ok(Self {
            endpoint,
            region: text("region"),
            profile: text("profile"),
            path_style,
            ca: text("ca"),
            sse,
            kms_key: text("kms-key"),
            storage_class: text("storage-class"),
            tagging: text("tags").map(|tags| tags_query(&tags)),
            timeout,
        })
    }
}

/// `team:core,stage:prod` as a query.
fn tags_query(tags: &str) -> String {
    let pairs = tags.split(',').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once(':').unwrap_or((pair, ""));
        format!("{}={}", escaped(name), escaped(value))
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Creates the client, and returns its endpoint unless it is the region's. Reads files and the
/// environment. If neither names a region and no endpoint is given, asks the machine's metadata
/// service for a region.
pub(super) async fn client(
    options: &S3Options,
    keys: Option<S3Keys>,
) -> Result<(Client, Option<String>), StoreError> {
    if keys.is_none() || options.profile.is_some() {
        profile::require(options.profile.as_deref())?;
    }
    let attempt = options.timeout.unwrap_or(ATTEMPT_TIMEOUT);
    let connect = CONNECT_TIMEOUT.min(attempt);
    let http = http_client(options, connect, attempt)?;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(connect)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt.saturating_mul(ATTEMPTS.saturating_add(1)))
        .build();
    let stalls = StalledStreamProtectionConfig::enabled()
        .grace_period(STALL_GRACE.min(attempt))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts)
        .stalled_stream_protection(stalls)
        // We compute our own checksums, which are compared with those of the stored object.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Ok(name) = AppName::new("cdh") {
        loader = loader.app_name(name);
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    match (keys, &options.profile) {
        (Some(S3Keys { access, secret }), _) => {
            let keys = Credentials::new(access, secret, None, None, "cdh");
            loader = loader.credentials_provider(keys);
        }
        (None, Some(profile)) => {
            loader = loader.credentials_provider(profile_chain(profile, options, http).await);
        }
        (None, None) => {}
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    } else if options.endpoint.is_some() {
        let mut file = ProfileFileRegionProvider::builder();
        if let Some(profile) = &options.profile {
            file = file.profile_name(profile);
        }
        let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(file.build())
            .or_else(Region::new(ANY_REGION));
        loader = loader.region(chain);
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = loader.load().await;
    let endpoint = options
        .endpoint
        .clone()
        .or_else(|| endpoint_of_service(&shared));
    let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    // Bucket names as host names need a DNS wildcard, which private servers rarely have.
    let is_own = endpoint
        .as_deref()
        .is_some_and(|endpoint| !endpoint.contains("amazonaws.com"));
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(options.path_style.unwrap_or(is_own));
    // Also if there is none: the builder may have found one that must be ignored.
    config.set_endpoint_url(endpoint.as_deref().map(base_url));
    Ok((Client::from_conf(config.build()), endpoint))
}

/// The endpoint from the environment or a profile. The one for S3 takes precedence over the one for all
/// services.
fn endpoint_of_service(shared: &aws_config::SdkConfig) -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_ignored = variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    // Like the client's own lookup (`service_config_key` in aws-sdk-s3).
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok();
    let of_s3 = shared
        .service_config()
        .zip(key)
        .and_then(|(config, key)| config.load_config(key))
        .filter(|_| !is_ignored);
    of_s3.or_else(|| shared.endpoint_url().map(str::to_owned))
}

/// An endpoint in the form that the client needs: it appends the bucket to a path without a
/// separator.
fn base_url(endpoint: &str) -> String {
    let host = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, host)| host);
    match host.contains('/') {
        true => format!("{endpoint}/"),
        false => endpoint.to_owned(),
    }
}

/// The standard chain without its first link, so that keys in the environment do not take
/// precedence over a profile that the URL names.
async fn profile_chain(
    profile: &str,
    options: &S3Options,
    http: SharedHttpClient,
) -> CredentialsProviderChain {
    let config = ProviderConfig::without_region()
        .with_http_client(http)
        .with_sleep_impl(TokioSleep::new());
    let region = match &options.region {
        Some(region) => Some(Region::new(region.clone())),
        None => {
            let file = ProfileFileRegionProvider::builder().profile_name(profile);
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(file.build())
                .region()
                .await
        }
    };
    let config = config.with_region(region);
    let from_files = ProfileFileCredentialsProvider::builder()
        .configure(&config)
        .profile_name(profile)
        .build();
    let container = EcsCredentialsProvider::builder().configure(&config).build();
    let instance = ImdsCredentialsProvider::builder()
        .configure(&config)
        .build();
    CredentialsProviderChain::first_try("Profile", from_files)
        .or_else("EcsContainer", container)
        .or_else("Ec2InstanceMetadata", instance)
}

fn http_client(
    options: &S3Options,
    connect: Duration,
    attempt: Duration,
) -> Result<SharedHttpClient, StoreError> {
    let settings = HttpConnectorSettings::builder()
        .connect_timeout(connect)
        .read_timeout(attempt)
        .build();
    // A machine without any certificates can still use http, or its own CA.
    let has_roots = !rustls_native_certs::load_native_certs().certs.is_empty();
    let mut trust = TrustStore::empty().with_native_roots(has_roots);
    if let Some(pem) = own_certificates(options)? {
        trust.add_pem_certificate(pem);
    }
    let tls = TlsContext::builder().with_trust_store(trust).build();
    let tls = tls.map_err(|error| StoreError::Refused {
        place: "TLS".to_owned(),
        said: error.to_string(),
    })?;
    // One connector, so that all requests share its connections.
    let connector = SharedHttpConnector::new(
        Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .proxy_config(ProxyConfig::from_env())
            .connector_settings(settings)
            .sleep_impl(TokioSleep::new())
            .enable_tcp_nodelay(true)
            .build(),
    );
    Ok(http_client_fn(move |_, _| connector.clone()))
}

/// The certificates of `ca=`, otherwise of `AWS_CA_BUNDLE`. They are checked here, because the
/// client panics on invalid ones.
fn own_certificates(options: &S3Options) -> Result<Option<Vec<u8>>, StoreError> {
    let from_environment = || std::env::var("AWS_CA_BUNDLE").ok();
    let Some(path) = options.ca.clone().or_else(from_environment) else {
        return Ok(None);
    };
    let pem = fs::read(&path).map_err(|error| StoreError::from_io(path.as_str(), error))?;
    let bad = |problem| StoreError::Url {
        text: format!("ca={path}"),
        problem,
    };
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| bad("expected a PEM file"))?;
        let added = store.add(certificate);
        added.map_err(|_| bad("it has a broken certificate"))?;
    }
    if store.is_empty() {
        return Err(bad("it has no certificate"));
    }
    Ok(Some(pem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<S3Options, StoreError> {
        let pairs = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        S3Options::parse(&pairs.collect())
    }

    #[test]
    fn options_are_typed_and_checked() {
        let good = parse(&[
            ("endpoint", "http://[::1]:9"),
            ("path-style", "false"),
            ("kms-key", "alias/x"),
            ("tags", "team:core,stage:a b"),
            ("timeout", "7"),
        ]);
        let good = good.unwrap();
        assert_eq!(good.path_style, Some(false));
        assert_eq!(good.sse.as_deref(), Some("aws:kms"));
        assert_eq!(good.tagging.as_deref(), Some("team=core&stage=a%20b"));
        assert_eq!(good.timeout, Some(Duration::from_secs(7)));
        for (name, value) in [
            ("endpoint", "minio:9000"),
            ("path-style", "maybe"),
            ("sse", "rot13"),
            ("timeout", "0"),
        ] {
            assert!(parse(&[(name, value)]).is_err(), "{name}");
        }
    }

    #[test]
    fn base_url_separates_a_path_from_the_bucket() {
        for (endpoint, url) in [
            ("http://host:9000", "http://host:9000"),
            ("http://host/storage/v1/s3", "http://host/storage/v1/s3/"),
            ("http://[::1]:9/s3", "http://[::1]:9/s3/"),
        ] {
            assert_eq!(base_url(endpoint), url);
        }
    }

    #[test]
    fn ca_file_without_certificates_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, text) in [("empty", ""), ("text", "hello"), ("broken", broken)] {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let options = parse(&[("ca", path.to_str().unwrap())]).unwrap();
            assert!(own_certificates(&options).is_err(), "{name}");
        }
        let options = parse(&[("ca", "/does/not/exist")]).unwrap();
        assert!(matches!(
            own_certificates(&options),
            Err(StoreError::NotFound { .. })
        ));
    }
}
