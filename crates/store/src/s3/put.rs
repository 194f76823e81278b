//! Puts one object into the bucket without replacing another: in one request if it is small.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use bytes::Bytes;
use cdh_bundle::{DigestReader, Digests, SourceReader, Window};

use super::checksum::{crc64, crc64_header, md5, md5_etag, md5_header};
use super::multipart::{self, PART_SIZE};
use super::problem::{Refusal, sorted};
use super::read::RangeReader;
use super::{Bucket, Head};
use crate::{ObjectKey, Receipt, StoreError};

pub(super) fn put(
    bucket: &Arc<Bucket>,
    key: &ObjectKey,
    body: &mut dyn Read,
    len: u64,
    journal: Option<&Path>,
) -> Result<Receipt, StoreError> {
    bucket.must_exist()?;
    // An earlier attempt of ours whose answer was lost, or another agent with the same dump.
    if let Some(head) = bucket.head(key)? {
        if head.stat.size != len {
            return Err(conflict(key));
        }
        let receipt = receipt_of(key, body, len)?;
        if !is_same(bucket, key, &head, &receipt)? {
            return Err(conflict(key));
        }
        forget(journal);
        return Ok(receipt);
    }
    if len > PART_SIZE {
        return multipart::put(bucket, key, body, len, journal);
    }
    put_whole(bucket, key, body, len)
}

pub(super) fn conflict(key: &ObjectKey) -> StoreError {
    StoreError::Conflict {
        key: key.to_string(),
    }
}

/// Removes a finished journal. A leftover is harmless: it names an upload that no longer exists.
pub(super) fn forget(journal: Option<&Path>) {
    if let Some(path) = journal {
        let _ = fs::remove_file(path);
    }
}

/// An error of the body, not of the store.
pub(super) fn body_failed(key: &ObjectKey, error: io::Error) -> StoreError {
    match error.downcast::<StoreError>() {
        Ok(error) => error,
        Err(source) => StoreError::Io {
            path: key.to_string(),
            source,
        },
    }
}

/// Fills `buffer` from the body, up to its end.
pub(super) fn fill(
    key: &ObjectKey,
    body: &mut dyn Read,
    buffer: &mut [u8],
) -> Result<usize, StoreError> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match body.read(rest) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(body_failed(key, error)),
        }
    }
    Ok(done)
}

/// The body must have the announced length; `found` bytes were read.
pub(super) fn check_length(
    key: &ObjectKey,
    body: &mut dyn Read,
    expected: u64,
    found: u64,
) -> Result<(), StoreError> {
    let more = fill(key, body, &mut [0])? as u64;
    if found == expected && more == 0 {
        return Ok(());
    }
    Err(StoreError::Length {
        key: key.to_string(),
        expected,
        found: found.saturating_add(more),
    })
}

/// Reads a body without sending it.
fn receipt_of(key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError> {
    let mut body = DigestReader::new(body);
    let mut buffer = vec![0; 1 << 20];
    let (mut crc, mut size) = (crc64(&[]), 0_u64);
    loop {
        let count = fill(key, &mut body, &mut buffer)?;
        let part = buffer.get(..count).unwrap_or_default();
        crc = super::checksum::combine(crc, crc64(part), count as u64);
        size = size.saturating_add(count as u64);
        if count < buffer.len() || size > len {
            break;
        }
    }
    check_length(key, &mut body, len, size)?;
    Ok(Receipt {
        digests: body.digests(),
        crc64: Some(crc),
        etag: None,
    })
}

/// Whether an object has the bytes of a receipt; reads the object if the server has no checksum.
pub(super) fn is_same(
    bucket: &Arc<Bucket>,
    key: &ObjectKey,
    head: &Head,
    receipt: &Receipt,
) -> Result<bool, StoreError> {
    if head.stat.size != receipt.digests.size {
        return Ok(false);
    }
    if let (Some(found), Some(expected)) = (head.crc64, receipt.crc64) {
        return Ok(found == expected);
    }
    if receipt.etag.is_some() && receipt.etag == head.stat.etag {
        return Ok(true);
    }
    let source = RangeReader::new(Arc::clone(bucket), key.clone(), &head.stat);
    let found = Digests::of_reader(SourceReader::new(Window::whole(Arc::new(source))));
    let found = found.map_err(|error| StoreError::from_io(key.as_str(), error))?;
    Ok(found == receipt.digests)
}

/// After the server reported that another writer was faster.
pub(super) fn settle(
    bucket: &Arc<Bucket>,
    key: &ObjectKey,
    receipt: Receipt,
) -> Result<Receipt, StoreError> {
    let Some(head) = bucket.head(key)? else {
        return Err(StoreError::Unreachable {
            place: bucket.place.clone(),
            problem: format!("the server reports that {key} exists, but it does not"),
        });
    };
    if is_same(bucket, key, &head, &receipt)? {
        Ok(receipt)
    } else {
        Err(conflict(key))
    }
}

fn put_whole(
    bucket: &Arc<Bucket>,
    key: &ObjectKey,
    body: &mut dyn Read,
    len: u64,
) -> Result<Receipt, StoreError> {
    let mut body = DigestReader::new(body);
    let mut data = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let found = fill(key, &mut body, &mut data)?;
    check_length(key, &mut body, len, found as u64)?;
    let data = Bytes::from(data);
    let (crc, md5) = (crc64(&data), md5(&data));
    let receipt = Receipt {
        digests: body.digests(),
        crc64: Some(crc),
        etag: bucket.has_md5_etags().then(|| md5_etag(md5)),
    };
    let (mut with_condition, mut with_crc) = (bucket.is_conditional(), bucket.has_crc64());
    loop {
        let request = bucket
            .client
            .put_object()
            .bucket(&bucket.name)
            .key(bucket.full(key))
            .content_type(content_type(key))
            .set_if_none_match(with_condition.then(|| "*".to_owned()))
            .set_checksum_crc64_nvme(with_crc.then(|| crc64_header(crc)))
            .set_content_md5((!with_crc).then(|| md5_header(md5)))
            .set_server_side_encryption(bucket.encryption())
            .set_ssekms_key_id(bucket.options.kms_key.clone())
            .set_storage_class(bucket.storage_class())
            .set_tagging(bucket.options.tagging.clone())
            .body(ByteStream::from(data.clone()));
        let error = match bucket.wait(request.send()) {
            Ok(_) => {
                bucket.learn(with_condition, with_crc);
                return Ok(receipt);
            }
            Err(error) => error,
        };
        let refusal = Refusal::of(&error).unwrap_or_default();
        if with_condition && refusal.is_precondition() {
            return settle(bucket, key, receipt);
        }
        // Servers reject unknown headers in several ways, so the headers are omitted one after the
        // other.
        if refusal.is_ignorance() && with_condition {
            with_condition = false;
        } else if refusal.is_ignorance() && with_crc {
            with_crc = false;
        } else {
            return Err(sorted(error, &bucket.place, key.as_str()));
        }
    }
}

pub(super) fn content_type(key: &ObjectKey) -> &'static str {
    if key.as_str().ends_with(".json") {
        "application/json"
    } else {
        "application/zip"
    }
}

impl Bucket {
    /// Stores what was learned about the server, once a request succeeded.
    pub(super) fn learn(&self, conditional: bool, crc64: bool) {
        self.conditional.store(conditional, Ordering::Relaxed);
        self.crc64.store(crc64, Ordering::Relaxed);
    }

    /// Etags of objects that are encrypted with a KMS key are not MD5.
    pub(super) fn has_md5_etags(&self) -> bool {
        self.options.sse.as_deref() != Some("aws:kms")
    }

    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        self.options.sse.as_deref().map(ServerSideEncryption::from)
    }

    pub(super) fn storage_class(&self) -> Option<StorageClass> {
        self.options
            .storage_class
            .as_deref()
            .map(StorageClass::from)
    }
}
