//! Reads a blob as a stream: resumes broken connections, and succeeds only if the digest is right.

use std::io::{self, Read};

use ureq::BodyReader;

use super::{Ask, Registry};
use crate::digest::RunningDigest;
use crate::scan::Stopped;
use crate::{Digest, ImageReference, PullError};

/// Maximum consecutive broken connections without progress.
const MAX_FRUITLESS: u32 = 3;
/// Broken connections at all.
const MAX_BROKEN: u32 = 64;

/// Reads one blob from start to end.
pub(crate) struct BlobReader<'r> {
    registry: &'r Registry,
    image: &'r ImageReference,
    digest: Digest,
    size: u64,
    at: u64,
    body: Option<BodyReader<'static>>,
    running: RunningDigest,
    fruitless: u32,
    broken: u32,
    stop: &'r (dyn Fn(u64) -> bool + 'r),
    advanced: &'r (dyn Fn(u64) + Sync),
}

impl<'r> BlobReader<'r> {
    /// The first read sends the first request. `stop` is called before each read, with the number of
    /// remaining bytes.
    pub(crate) fn new(
        registry: &'r Registry,
        image: &'r ImageReference,
        (digest, size): (Digest, u64),
        stop: &'r (dyn Fn(u64) -> bool + 'r),
        advanced: &'r (dyn Fn(u64) + Sync),
    ) -> Self {
        Self {
            registry,
            image,
            digest,
            size,
            at: 0,
            body: None,
            running: RunningDigest::default(),
            fruitless: 0,
            broken: 0,
            stop,
            advanced,
        }
    }

    /// Number of remaining bytes.
    pub(crate) fn left(&self) -> u64 {
        self.size.saturating_sub(self.at)
    }

    fn what(&self) -> String {
        format!("layer {}", self.digest)
    }

    /// Opens a body that continues at `at`.
    fn open(&mut self) -> Result<BodyReader<'static>, PullError> {
        let path = format!("blobs/{}", self.digest);
        let what = self.what();
        let ask = Ask {
            path: &path,
            accept: "*/*",
            range: (self.at > 0).then_some((self.at, None)),
            what: &what,
        };
        let answer = self.registry.get(self.image, &ask)?;
        let status = answer.status().as_u16();
        let starts_at = match (status, answer.headers().get("content-range")) {
            (206, Some(range)) => range.to_str().ok().and_then(range_start),
            _ => None,
        };
        let limit = self.size.saturating_add(1);
        let mut body = answer.into_body().into_with_config().limit(limit).reader();
        let skip = match (self.at, status, starts_at) {
            (0, _, _) => 0,
            (at, 206, Some(start)) if start == at => 0,
            // A server without ranges starts over.
            (at, 200, _) => at,
            _ => {
                return Err(PullError::Malformed {
                    what,
                    problem: "the registry continues it at another place".to_owned(),
                });
            }
        };
        let skipped = io::copy(&mut body.by_ref().take(skip), &mut io::sink());
        match skipped {
            Ok(count) if count == skip => {
                self.registry.count(skip);
                Ok(body)
            }
            _ => Err(self.truncated()),
        }
    }

    fn truncated(&self) -> PullError {
        PullError::Truncated {
            what: self.what(),
            expected: self.size,
            found: self.at,
        }
    }

    /// Whether everything arrived and is right.
    fn at_end(&mut self) -> Result<(), PullError> {
        let found = self.running.clone().finish();
        match found == self.digest {
            true => Ok(()),
            false => Err(PullError::Digest {
                what: self.what(),
                expected: self.digest,
                found,
            }),
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, PullError> {
        while self.at < self.size {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.open()?,
            };
            let room = usize::try_from(self.left())
                .unwrap_or(usize::MAX)
                .min(buf.len());
            let error = match body.read(buf.get_mut(..room).unwrap_or_default()) {
                Ok(0) => None,
                Ok(count) => {
                    self.body = Some(body);
                    self.running.update(buf.get(..count).unwrap_or_default());
                    self.at = self.at.saturating_add(count as u64);
                    self.fruitless = 0;
                    self.registry.count(count as u64);
                    (self.advanced)(count as u64);
                    return Ok(count);
                }
                Err(error) => Some(error),
            };
            self.fruitless = self.fruitless.saturating_add(1);
            self.broken = self.broken.saturating_add(1);
            if self.fruitless > MAX_FRUITLESS || self.broken > MAX_BROKEN {
                return Err(match error {
                    Some(source) if source.kind() == io::ErrorKind::TimedOut => {
                        PullError::Unreachable {
                            registry: self.image.registry().to_owned(),
                            source,
                        }
                    }
                    _ => self.truncated(),
                });
            }
        }
        self.at_end().map(|()| 0)
    }
}

/// `bytes 5-9/10`.
fn range_start(value: &str) -> Option<u64> {
    let range = value.trim().strip_prefix("bytes")?.trim_start();
    range.split_once('-')?.0.parse().ok()
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if (self.stop)(self.left()) {
            return Err(io::Error::other(Stopped));
        }
        self.read_some(buf).map_err(io::Error::other)
    }
}

impl Registry {
    /// Bytes `first..first + length` of a blob; `None` if the registry does not support ranges.
    pub(crate) fn range(
        &self,
        image: &ImageReference,
        digest: Digest,
        (first, length): (u64, u64),
    ) -> Result<Option<impl Read + use<>>, PullError> {
        let path = format!("blobs/{digest}");
        let what = format!("layer {digest}");
        let last = first.saturating_add(length).saturating_sub(1);
        let ask = Ask {
            path: &path,
            accept: "*/*",
            range: Some((first, Some(last))),
            what: &what,
        };
        let answer = self.get(image, &ask)?;
        let range = answer.headers().get("content-range");
        let start = range
            .and_then(|value| value.to_str().ok())
            .and_then(range_start);
        if answer.status().as_u16() != 206 || start != Some(first) {
            return Ok(None);
        }
        self.count(length);
        let body = answer
            .into_body()
            .into_with_config()
            .limit(length.saturating_add(1));
        Ok(Some(body.reader().take(length)))
    }
}
