//! A multipart upload: parts in parallel, each with its checksum, resumable.
//!
//! ```text
//! caller's thread   read part n ── checksum ── known at the server? ─ yes ─▶ next
//!                                                    │ no
//! runtime                                            └─▶ UploadPart … (up to three at a time)
//! ```
//!
//! A resumed upload also reads the complete body again. That costs little compared with sending it,
//! and proves that the server's parts belong to this body.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use cdh_bundle::DigestReader;
use tokio::task::{JoinError, JoinSet};

use super::Bucket;
use super::checksum::{
    bare_etag, combine, crc64, crc64_header, md5, md5_header, multipart_etag, parse_crc64,
    parse_md5_etag,
};
use super::journal::{Begun, Journal, UploadedPart};
use super::problem::{Refusal, sorted};
use super::put::{check_length, conflict, content_type, fill, forget, is_same, settle};
use crate::{ObjectKey, Receipt, StoreError};

/// Usual size of a part. S3 requires 5 MiB or more.
pub(super) const PART_SIZE: u64 = 8 << 20;
/// S3 takes 10,000.
const MOST_PARTS: u64 = 9_900;
/// Maximum size of all buffers: those being sent and the one being filled. Only bundles above 155 GiB
/// have parts of more than 16 MiB. Two of these do not fit, so they are sent one at a time.
const MEMORY: u64 = 32 << 20;

fn part_size(len: u64) -> u64 {
    len.div_ceil(MOST_PARTS)
        .next_multiple_of(1 << 20)
        .max(PART_SIZE)
}

/// An upload that has begun.
struct Upload<'b> {
    bucket: &'b Arc<Bucket>,
    key: &'b ObjectKey,
    begun: Begun,
    /// Parts that an earlier process sent.
    known: BTreeMap<i32, UploadedPart>,
    journal: Journal,
    done: BTreeMap<i32, UploadedPart>,
}

pub(super) fn put(
    bucket: &Arc<Bucket>,
    key: &ObjectKey,
    body: &mut dyn Read,
    len: u64,
    path: Option<&Path>,
) -> Result<Receipt, StoreError> {
    let mut upload = begin(bucket, key, len, path)?;
    let sent = upload.send(body);
    let result = sent.and_then(|receipt| upload.complete(receipt));
    match &result {
        Ok(_) => forget(path),
        // With a journal, the next attempt resumes after a store that does not answer, and after
        // credentials that expired.
        Err(
            StoreError::Unreachable { .. }
            | StoreError::Stopped
            | StoreError::Denied { .. }
            | StoreError::NoCredentials { .. }
            | StoreError::Credentials { .. }
            | StoreError::ClockSkew { .. },
        ) if path.is_some() => {}
        Err(_) => {
            let _ = bucket.abort(&upload.begun.key, &upload.begun.upload);
            forget(path);
        }
    }
    result
}

/// Finds the journal's upload on the server, or starts another.
fn begin<'b>(
    bucket: &'b Arc<Bucket>,
    key: &'b ObjectKey,
    len: u64,
    path: Option<&Path>,
) -> Result<Upload<'b>, StoreError> {
    let wanted = Begun::new(&bucket.place, &bucket.full(key), len, part_size(len));
    if let Some((begun, noted)) = path.and_then(|path| Journal::read(path, &wanted))
        && let Some(known) = at_server(bucket, key, &begun, noted)?
    {
        let journal = Journal::write(path, &begun, false);
        return Ok(Upload {
            bucket,
            key,
            begun,
            known,
            journal,
            done: BTreeMap::new(),
        });
    }
    let begun = create(bucket, key, wanted)?;
    Ok(Upload {
        bucket,
        key,
        journal: Journal::write(path, &begun, true),
        begun,
        known: BTreeMap::new(),
        done: BTreeMap::new(),
    })
}

/// The recorded parts that the server has; `None` if it does not know the upload.
fn at_server(
    bucket: &Bucket,
    key: &ObjectKey,
    begun: &Begun,
    noted: BTreeMap<i32, UploadedPart>,
) -> Result<Option<BTreeMap<i32, UploadedPart>>, StoreError> {
    let mut known = BTreeMap::new();
    let mut marker: Option<String> = None;
    loop {
        let request = bucket
            .client
            .list_parts()
            .bucket(&bucket.name)
            .key(&begun.key)
            .upload_id(&begun.upload)
            .set_part_number_marker(marker.clone());
        let page = match bucket.wait(request.send()) {
            Ok(page) => page,
            // A retry would fail again: the parts are sent again, and the old ones still cost money, so they
            // are aborted.
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.is_gibberish()) => {
                let _ = bucket.abort(&begun.key, &begun.upload);
                return Ok(None);
            }
            Err(error) => {
                return match sorted(error, &bucket.place, key.as_str()) {
                    error @ (StoreError::Unreachable { .. }
                    | StoreError::Denied { .. }
                    | StoreError::NoCredentials { .. }
                    | StoreError::Credentials { .. }
                    | StoreError::ClockSkew { .. }) => Err(error),
                    _ => Ok(None),
                };
            }
        };
        for found in page.parts() {
            let (Some(number), Some(etag)) = (found.part_number(), found.e_tag()) else {
                continue;
            };
            let size = found.size().and_then(|size| u64::try_from(size).ok());
            if let Some(part) = noted.get(&number)
                && part.etag == bare_etag(etag)
                && Some(part.size) == size
            {
                known.insert(number, part.clone());
            }
        }
        let next = page.next_part_number_marker().map(str::to_owned);
        if page.is_truncated() != Some(true) || next.is_none() || next == marker {
            return Ok(Some(known));
        }
        marker = next;
    }
}

fn create(bucket: &Bucket, key: &ObjectKey, wanted: Begun) -> Result<Begun, StoreError> {
    let mut with_crc = bucket.has_crc64();
    let answer = loop {
        let request = bucket
            .client
            .create_multipart_upload()
            .bucket(&bucket.name)
            .key(&wanted.key)
            .content_type(content_type(key))
            .set_checksum_algorithm(with_crc.then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_type(with_crc.then_some(ChecksumType::FullObject))
            .set_server_side_encryption(bucket.encryption())
            .set_ssekms_key_id(bucket.options.kms_key.clone())
            .set_storage_class(bucket.storage_class())
            .set_tagging(bucket.options.tagging.clone());
        match bucket.wait(request.send()) {
            Ok(answer) => break answer,
            Err(error) if with_crc && Refusal::of(&error).is_some_and(|r| r.is_ignorance()) => {
                with_crc = false;
            }
            Err(error) => return Err(sorted(error, &bucket.place, key.as_str())),
        }
    };
    let Some(upload) = answer.upload_id().filter(|id| !id.is_empty()) else {
        return Err(StoreError::Unreachable {
            place: bucket.place.clone(),
            problem: "it started an upload without returning an id".to_owned(),
        });
    };
    Ok(Begun {
        upload: upload.to_owned(),
        // A server that does not return the checksum did not check it.
        crc64: with_crc && answer.checksum_algorithm() == Some(&ChecksumAlgorithm::Crc64Nvme),
        ..wanted
    })
}

impl Upload<'_> {
    /// Sends the missing parts.
    fn send(&mut self, body: &mut dyn Read) -> Result<Receipt, StoreError> {
        let Begun { len, part_size, .. } = self.begun;
        let most = usize::try_from((MEMORY / part_size).saturating_sub(1)).unwrap_or(1);
        let most = most.max(1);
        let mut body = DigestReader::new(body);
        let mut flying: JoinSet<Result<(UploadedPart, Bytes), StoreError>> = JoinSet::new();
        let mut buffers: Vec<Vec<u8>> = Vec::new();
        let (mut at, mut number, mut whole) = (0_u64, 0_i32, crc64(&[]));
        while at < len {
            let size = part_size.min(len.saturating_sub(at));
            number = number.saturating_add(1);
            let mut buffer = buffers.pop().unwrap_or_default();
            buffer.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
            let count = fill(self.key, &mut body, &mut buffer)? as u64;
            at = at.saturating_add(count);
            if count < size {
                break;
            }
            let crc = crc64(&buffer);
            whole = combine(whole, crc, size);
            let same = |part: &&UploadedPart| part.size == size && part.crc64 == crc;
            if let Some(part) = self.known.get(&number).filter(same) {
                self.done.insert(number, part.clone());
                buffers.push(buffer);
                continue;
            }
            while flying.len() >= most {
                self.land(&mut flying, &mut buffers)?;
            }
            let part = UploadedPart {
                number,
                size,
                etag: String::new(),
                crc64: crc,
            };
            let sender = Sender::new(self.bucket, self.key, &self.begun);
            flying.spawn_on(sender.send(part, Bytes::from(buffer)), &self.bucket.handle);
        }
        check_length(self.key, &mut body, len, at)?;
        while !flying.is_empty() {
            self.land(&mut flying, &mut buffers)?;
        }
        // The etag rule uses MD5s, and the parts' etags are their MD5s.
        let md5s: Option<Vec<_>> = self
            .done
            .values()
            .map(|part| parse_md5_etag(&part.etag))
            .collect();
        Ok(Receipt {
            digests: body.digests(),
            crc64: Some(whole),
            // Only etags that were compared with our MD5s prove something about the bytes.
            etag: md5s
                .filter(|_| !self.begun.crc64 && self.bucket.has_md5_etags())
                .map(|md5s| multipart_etag(&md5s)),
        })
    }

    /// Waits for one part.
    fn land(
        &mut self,
        flying: &mut JoinSet<Result<(UploadedPart, Bytes), StoreError>>,
        buffers: &mut Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let Some(landed) = self.bucket.wait(flying.join_next()) else {
            return Ok(());
        };
        let landed = self.landed(landed, buffers);
        // The other parts are nearly complete, and the next attempt need not send those that
        // arrive.
        while landed.is_err()
            && let Some(other) = self.bucket.wait(flying.join_next())
        {
            let _ = self.landed(other, buffers);
        }
        landed
    }

    /// Records a part that arrived.
    fn landed(
        &mut self,
        landed: Result<Result<(UploadedPart, Bytes), StoreError>, JoinError>,
        buffers: &mut Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (part, buffer) = landed.unwrap_or_else(|error| {
            Err(StoreError::Unreachable {
                place: self.bucket.place.clone(),
                problem: error.to_string(),
            })
        })?;
        self.journal.finished(&part);
        self.done.insert(part.number, part);
        // The last user returns the buffer; otherwise the allocator frees it.
        if buffer.is_unique() {
            buffers.push(Vec::from(buffer));
        }
        Ok(())
    }

    /// Completes the upload: the parts become an object.
    fn complete(&self, receipt: Receipt) -> Result<Receipt, StoreError> {
        let (bucket, key) = (self.bucket, self.key);
        // For servers that ignore `If-None-Match`.
        if let Some(head) = bucket.head(key)? {
            let _ = bucket.abort(&self.begun.key, &self.begun.upload);
            return if is_same(bucket, key, &head, &receipt)? {
                Ok(receipt)
            } else {
                Err(conflict(key))
            };
        }
        let parts = self.done.values().map(|part| {
            CompletedPart::builder()
                .part_number(part.number)
                .e_tag(format!("\"{}\"", part.etag))
                .set_checksum_crc64_nvme(self.begun.crc64.then(|| crc64_header(part.crc64)))
                .build()
        });
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.collect()))
            .build();
        let mut with_condition = bucket.is_conditional();
        loop {
            let crc = receipt.crc64.filter(|_| self.begun.crc64);
            let request = bucket
                .client
                .complete_multipart_upload()
                .bucket(&bucket.name)
                .key(&self.begun.key)
                .upload_id(&self.begun.upload)
                .set_if_none_match(with_condition.then(|| "*".to_owned()))
                .set_checksum_type(crc.map(|_| ChecksumType::FullObject))
                .set_checksum_crc64_nvme(crc.map(crc64_header))
                .multipart_upload(parts.clone());
            let error = match bucket.wait(request.send()) {
                Ok(_) => {
                    bucket.learn(with_condition, bucket.has_crc64());
                    return Ok(receipt);
                }
                Err(error) => error,
            };
            let refusal = Refusal::of(&error).unwrap_or_default();
            if with_condition && refusal.is_precondition() {
                let _ = bucket.abort(&self.begun.key, &self.begun.upload);
                return settle(bucket, key, receipt);
            }
            if with_condition && refusal.is_ignorance() {
                with_condition = false;
                continue;
            }
            // An earlier attempt whose answer was lost may have succeeded.
            if refusal.code == "NoSuchUpload" && bucket.head(key)?.is_some() {
                return settle(bucket, key, receipt);
            }
            if refusal.code == "InvalidPart" || refusal.code == "InvalidPartOrder" {
                return Err(StoreError::UploadLost {
                    key: key.to_string(),
                });
            }
            return Err(sorted(error, &bucket.place, key.as_str()));
        }
    }
}

/// The data for sending a part.
struct Sender {
    client: Client,
    bucket: String,
    place: String,
    shown: String,
    begun: Begun,
    /// Whether etags are MD5s: those of objects encrypted with a KMS key are not.
    has_md5_etags: bool,
}

impl Sender {
    fn new(bucket: &Bucket, key: &ObjectKey, begun: &Begun) -> Self {
        Self {
            client: bucket.client.clone(),
            bucket: bucket.name.clone(),
            place: bucket.place.clone(),
            shown: key.to_string(),
            begun: begun.clone(),
            has_md5_etags: bucket.has_md5_etags(),
        }
    }

    async fn send(
        self,
        part: UploadedPart,
        data: Bytes,
    ) -> Result<(UploadedPart, Bytes), StoreError> {
        let md5 = (!self.begun.crc64).then(|| md5(&data));
        let request = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&self.begun.key)
            .upload_id(&self.begun.upload)
            .part_number(part.number)
            .set_checksum_crc64_nvme(self.begun.crc64.then(|| crc64_header(part.crc64)))
            .set_content_md5(md5.map(md5_header))
            .body(ByteStream::from(data.clone()));
        let answer = request
            .send()
            .await
            .map_err(|error| sorted(error, &self.place, &self.shown))?;
        let wrong = |problem: &str| StoreError::Unreachable {
            place: self.place.clone(),
            problem: format!("part {} of {}: {problem}", part.number, self.shown),
        };
        let etag = answer.e_tag().map(bare_etag).unwrap_or_default();
        if etag.is_empty() {
            return Err(wrong("the server reports it, but without an etag"));
        }
        let crc = answer.checksum_crc64_nvme().map(parse_crc64);
        if self.begun.crc64 && crc.is_some_and(|crc| crc != Some(part.crc64)) {
            return Err(wrong("it arrived with another checksum"));
        }
        let found = parse_md5_etag(&etag).filter(|_| self.has_md5_etags);
        if md5.is_some() && found.is_some() && md5 != found {
            return Err(wrong("it arrived with another MD5"));
        }
        Ok((UploadedPart { etag, ..part }, data))
    }
}
