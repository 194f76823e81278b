//! A store in a bucket of S3 or a compatible server.
//!
//! Invariants: an upload counts only after a HEAD request confirmed its size and checksum. Objects are never
//! overwritten, with or without the server's help (conditional requests are used but not relied on). Every wait
//! has a limit. An upload uses up to 32 MiB of memory. Calls block on a small runtime of the store.

mod answer;
mod checksum;
mod connect;
mod endpoint;
mod journal;
mod list;
mod multipart;
mod problem;
mod profile;
mod put;
mod read;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::ChecksumMode;
use cdh_elfcore::ByteSource;
use jiff::Timestamp;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{CONNECTION_REFUSED, TIMED_OUT, UNKNOWN_HOST};
use crate::ship::differs;
use crate::{
    EndpointProblem, Listed, Listing, ObjectKey, ObjectStat, Receipt, S3Keys, ShipError, Store,
    StoreError,
};
use checksum::{bare_etag, crc64_header, parse_crc64};
use connect::S3Options;
use endpoint::Endpoint;
use problem::{Refusal, sorted};

/// Maximum lifetime of presigned URLs (Signature Version 4).
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A store in a bucket.
pub struct S3Store {
    bucket: Arc<Bucket>,
}

/// The context of requests; shared with readers that outlive the store.
struct Bucket {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    client: Client,
    /// The endpoint, unless it is the region's own.
    endpoint: Option<Endpoint>,
    options: S3Options,
    name: String,
    /// Empty, or ends with `/`.
    prefix: String,
    /// For people and errors.
    place: String,
    /// Whether the server supports `If-None-Match`.
    conditional: AtomicBool,
    /// Whether the server supports CRC-64/NVME.
    crc64: AtomicBool,
    /// Whether the bucket is known to exist, or the server does not answer this question.
    checked: AtomicBool,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // Name resolution in progress must not delay the end of the program.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Bucket {
    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// The name of a key in the bucket.
    fn full(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    /// An error with its cause, if another request to the server can show it: a server with TLS often
    /// just closes a connection without TLS. Behind a proxy, such a request would show nothing about
    /// the server.
    fn explained(&self, error: StoreError) -> StoreError {
        let StoreError::Unreachable { place, problem } = &error else {
            return error;
        };
        let is_closed = ![CONNECTION_REFUSED, UNKNOWN_HOST, TIMED_OUT].contains(&problem.as_str())
            && (problem.contains("client error") || problem.contains("connection"));
        let has_proxy = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        let plain = self.endpoint.as_ref().filter(|endpoint| !endpoint.has_tls);
        let problem = match () {
            () if plain.is_some_and(|plain| is_closed && !has_proxy && plain.answers_tls()) => {
                EndpointProblem::Tls
            }
            // The client's message for an answer whose first line or headers are invalid.
            () if problem.contains("invalid HTTP ") => EndpointProblem::NotS3 {
                said: "it is not HTTP".to_owned(),
            },
            () => return error,
        };
        StoreError::Endpoint {
            place: place.clone(),
            problem,
        }
    }

    fn is_conditional(&self) -> bool {
        self.conditional.load(Ordering::Relaxed)
    }

    fn has_crc64(&self) -> bool {
        self.crc64.load(Ordering::Relaxed)
    }

    /// Ensures that the bucket exists before the first write of this process: some servers create a
    /// missing bucket with its first object, so dumps would go to a mistyped name.
    ///
    /// If the server refuses this request (403 for write-only credentials), it is not repeated; the
    /// write itself will show an error.
    ///
    /// # Errors
    /// [`StoreError::NoBucket`], or if the server does not answer.
    fn must_exist(&self) -> Result<(), StoreError> {
        if self.checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Err(error) = self.head_bucket() else {
            self.checked.store(true, Ordering::Relaxed);
            return Ok(());
        };
        match error {
            StoreError::NoBucket { .. }
            | StoreError::Unreachable { .. }
            | StoreError::NoCredentials { .. }
            | StoreError::Credentials { .. }
            | StoreError::Region { .. } => Err(error),
            // HEAD has no body that gives the reason; the refused write does.
            _ => {
                self.checked.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn head_bucket(&self) -> Result<(), StoreError> {
        let request = self.client.head_bucket().bucket(&self.name);
        match self.wait(request.send()) {
            Ok(_) => Ok(()),
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.status == 404) => {
                Err(StoreError::NoBucket {
                    place: self.place.clone(),
                })
            }
            Err(error) => Err(sorted(error, &self.place, "")),
        }
    }

    /// What the server reports about an object.
    fn head(&self, key: &ObjectKey) -> Result<Option<Head>, StoreError> {
        let request = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(self.full(key))
            .checksum_mode(ChecksumMode::Enabled);
        let answer = match self.wait(request.send()) {
            Ok(answer) => answer,
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.status == 404) => {
                return Ok(None);
            }
            Err(error) => return Err(sorted(error, &self.place, key.as_str())),
        };
        let size = answer
            .content_length()
            .and_then(|size| u64::try_from(size).ok());
        let Some(size) = size else {
            return Err(StoreError::Refused {
                place: self.place.clone(),
                said: format!("{key} has no size"),
            });
        };
        let stat = ObjectStat {
            size,
            etag: answer.e_tag().map(bare_etag),
            modified: answer.last_modified().and_then(timestamp),
        };
        let crc64 = answer.checksum_crc64_nvme().and_then(parse_crc64);
        Ok(Some(Head { stat, crc64 }))
    }
}

/// The answer to a HEAD.
struct Head {
    stat: ObjectStat,
    crc64: Option<u64>,
}

fn timestamp(at: &aws_smithy_types::DateTime) -> Option<Timestamp> {
    let nanosecond = i32::try_from(at.subsec_nanos()).ok()?;
    Timestamp::new(at.secs(), nanosecond).ok()
}

impl S3Store {
    /// Opens the bucket `name`; all keys begin with `prefix`. Sends no request. Credentials come
    /// from the standard chain: environment, profile, SSO, web identity, IMDS.
    ///
    /// # Errors
    /// If an option is invalid or a CA file cannot be read.
    pub fn open(
        name: &str,
        prefix: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<Self, StoreError> {
        Self::open_as(name, prefix, options, None)
    }

    /// Like [`open`](Self::open), with these credentials if given.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as(
        name: &str,
        prefix: &str,
        options: &BTreeMap<String, String>,
        keys: Option<S3Keys>,
    ) -> Result<Self, StoreError> {
        let options = S3Options::parse(options)?;
        let mut place = format!("s3://{name}");
        let mut prefix = prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            place = format!("{place}/{prefix}");
            prefix.push('/');
        }
        // One thread for the sockets, one for signatures and checksums.
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("cdh-s3")
            .enable_all()
            .build()
            .map_err(|error| StoreError::from_io(place.as_str(), error))?;
        let (client, endpoint) = runtime.block_on(connect::client(&options, keys))?;
        if let Some(endpoint) = &endpoint {
            place = format!("{place} at {endpoint}");
        }
        let bucket = Bucket {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            client,
            endpoint: endpoint.and_then(|endpoint| Endpoint::parse(&endpoint).ok()),
            options,
            name: name.to_owned(),
            prefix,
            place: problem::harmless(&place),
            conditional: AtomicBool::new(true),
            crc64: AtomicBool::new(true),
            checked: AtomicBool::new(false),
        };
        Ok(Self {
            bucket: Arc::new(bucket),
        })
    }
}

impl Store for S3Store {
    fn describe(&self) -> String {
        self.bucket.place.clone()
    }

    fn check(&self) -> Result<(), StoreError> {
        let bucket = &self.bucket;
        let checked = match bucket.head_bucket() {
            Err(error @ (StoreError::NoBucket { .. } | StoreError::Unreachable { .. })) => {
                Err(error)
            }
            // Only the answer to a GET shows which of key, signature and permission is wrong.
            Err(_) => {
                let request = bucket.client.list_objects_v2().bucket(&bucket.name);
                let request = request.prefix(bucket.prefix.as_str()).max_keys(1);
                match bucket.wait(request.send()) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(sorted(error, &bucket.place, "")),
                }
            }
            Ok(()) => Ok(()),
        };
        checked.map_err(|error| bucket.explained(error))
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError> {
        put::put(&self.bucket, key, body, len, None).map_err(|error| self.bucket.explained(error))
    }

    fn put_resumable(
        &self,
        key: &ObjectKey,
        body: &mut dyn Read,
        len: u64,
        journal: &Path,
    ) -> Result<Receipt, StoreError> {
        put::put(&self.bucket, key, body, len, Some(journal))
            .map_err(|error| self.bucket.explained(error))
    }

    fn verify(&self, key: &ObjectKey, sent: &Receipt) -> Result<(), ShipError> {
        let bytes = |size| format!("{size} bytes");
        let size = sent.digests.size;
        let Some(head) = self.bucket.head(key)? else {
            return Err(differs(key, bytes(size), "nothing".to_owned()));
        };
        if head.stat.size != size {
            return Err(differs(key, bytes(size), bytes(head.stat.size)));
        }
        if let (Some(expected), Some(found)) = (sent.crc64, head.crc64) {
            let shown = |crc| format!("CRC-64 {}", crc64_header(crc));
            return if expected == found {
                Ok(())
            } else {
                Err(differs(key, shown(expected), shown(found)))
            };
        }
        // Another etag proves nothing: etags of encrypted objects are not MD5.
        if sent.etag.is_some() && sent.etag == head.stat.etag {
            return Ok(());
        }
        crate::ship::read_back(self, key, sent)
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectStat>, StoreError> {
        let head = self.bucket.head(key);
        let head = head.map_err(|error| self.bucket.explained(error))?;
        Ok(head.map(|head| head.stat))
    }

    fn read_pinned(
        &self,
        key: &ObjectKey,
        stat: &ObjectStat,
    ) -> Result<Arc<dyn ByteSource>, StoreError> {
        let bucket = Arc::clone(&self.bucket);
        Ok(Arc::new(read::RangeReader::new(bucket, key.clone(), stat)))
    }

    fn read_range(
        &self,
        key: &ObjectKey,
        stat: &ObjectStat,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        read::stream(&self.bucket, key, stat.etag.as_deref(), range, sink)
    }

    fn list(
        &self,
        listing: &Listing<'_>,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        list::list(&self.bucket, listing, visit).map_err(|error| self.bucket.explained(error))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let bucket = &self.bucket;
        let request = bucket.client.delete_object().bucket(&bucket.name);
        match bucket.wait(request.key(bucket.full(key)).send()) {
            Ok(_) => Ok(()),
            Err(error) => match sorted(error, &bucket.place, key.as_str()) {
                StoreError::NotFound { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    fn share(&self, key: &ObjectKey, expires: Duration) -> Result<String, StoreError> {
        let bucket = &self.bucket;
        let refused = |said: String| StoreError::Refused {
            place: bucket.place.clone(),
            said,
        };
        if expires > LONGEST_LINK {
            return Err(refused("a link lasts a maximum of seven days".to_owned()));
        }
        let config =
            PresigningConfig::expires_in(expires).map_err(|error| refused(error.to_string()))?;
        let request = bucket.client.get_object().bucket(&bucket.name);
        let signed = bucket
            .wait(request.key(bucket.full(key)).presigned(config))
            .map_err(|error| sorted(error, &bucket.place, key.as_str()))?;
        Ok(signed.uri().to_owned())
    }

    fn abort_stale_uploads(&self, age: Duration) -> Result<usize, StoreError> {
        list::abort_stale_uploads(&self.bucket, age)
    }
}
