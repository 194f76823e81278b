//! Lists pages of objects and of unfinished uploads.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;

use super::checksum::bare_etag;
use super::problem::{Refusal, sorted};
use super::{Bucket, timestamp};
use crate::{
    Depth, DumpSummary, EndpointProblem, Listed, ListedObject, Listing, ObjectKey, StoreError,
};

/// Visits pages of up to 1,000 names each, in order.
pub(super) fn list(
    bucket: &Bucket,
    listing: &Listing<'_>,
    visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let after = listing
        .start_after
        .map(|key| format!("{}{key}", bucket.prefix));
    let mut token: Option<String> = None;
    loop {
        let request = bucket
            .client
            .list_objects_v2()
            .bucket(&bucket.name)
            .prefix(format!("{}{}", bucket.prefix, listing.under))
            .set_delimiter((listing.depth == Depth::Level).then(|| "/".to_owned()))
            .set_start_after(after.clone().filter(|_| token.is_none()))
            .set_continuation_token(token.clone());
        let page = bucket.wait(request.send()).map_err(|error| {
            match sorted(error, &bucket.place, listing.under) {
                // A prefix without objects is an empty listing: only bucket and endpoint can be missing.
                StoreError::NotFound { .. } => StoreError::NoBucket {
                    place: bucket.place.clone(),
                },
                error => error,
            }
        })?;
        // Truncated XML, or XML of another kind, parses like a listing without objects.
        let is_listing = page.is_truncated().is_some()
            || page.name().is_some()
            || page.key_count().is_some()
            || page.prefix().is_some();
        if !is_listing {
            return Err(StoreError::Endpoint {
                place: bucket.place.clone(),
                problem: EndpointProblem::NotS3 {
                    said: "status 200, XML that is not a complete listing".to_owned(),
                },
            });
        }
        let objects = page.contents().iter().filter_map(|object| {
            // An object whose name we would not write is foreign.
            let key = object.key()?.strip_prefix(&bucket.prefix)?;
            Some(Listed::Object(ListedObject {
                key: ObjectKey::parse(key).ok()?,
                size: u64::try_from(object.size()?).ok()?,
                etag: object.e_tag().map(bare_etag),
                modified: object.last_modified().and_then(timestamp),
            }))
        });
        let prefixes = page.common_prefixes().iter().filter_map(|prefix| {
            let prefix = prefix.prefix()?.strip_prefix(&bucket.prefix)?;
            ObjectKey::parse(prefix.strip_suffix('/')?).ok()?;
            Some(Listed::Prefix(prefix.to_owned()))
        });
        let mut found: Vec<Listed> = objects.chain(prefixes).collect();
        found.sort_by(|a, b| name(a).cmp(name(b)));
        for listed in found {
            if visit(listed).is_break() {
                return Ok(());
            }
        }
        let next = page.next_continuation_token().map(str::to_owned);
        if page.is_truncated() != Some(true) || next.is_none() || listing.first_page {
            return Ok(());
        }
        if next == token {
            return Err(StoreError::Refused {
                place: bucket.place.clone(),
                said: "the listing repeats itself".to_owned(),
            });
        }
        token = next;
    }
}

fn name(listed: &Listed) -> &str {
    match listed {
        Listed::Object(object) => object.key.as_str(),
        Listed::Prefix(prefix) => prefix,
    }
}

/// Whether the upload is one of ours: other programs may use the bucket and the prefix.
fn is_ours(key: &str) -> bool {
    let Ok(key) = ObjectKey::parse(key) else {
        return false;
    };
    key.as_str().starts_with("dumps/")
        && DumpSummary::from_key(&key).is_some_and(|summary| !summary.legacy)
}

/// Aborts uploads of bundles that began longer than `age` ago.
pub(super) fn abort_stale_uploads(bucket: &Bucket, age: Duration) -> Result<usize, StoreError> {
    let mut count = 0_usize;
    let mut marker: (Option<String>, Option<String>) = (None, None);
    loop {
        let request = bucket
            .client
            .list_multipart_uploads()
            .bucket(&bucket.name)
            .prefix(format!("{}dumps/", bucket.prefix))
            .set_key_marker(marker.0.clone())
            .set_upload_id_marker(marker.1.clone());
        let page = match bucket.wait(request.send()) {
            Ok(page) => page,
            // If a server cannot list them, the bucket's lifecycle rules must remove them.
            Err(error)
                if Refusal::of(&error)
                    .is_some_and(|refusal| refusal.is_ignorance() || refusal.is_gibberish()) =>
            {
                return Ok(count);
            }
            Err(error) => return Err(sorted(error, &bucket.place, "uploads")),
        };
        let now = Timestamp::now();
        for upload in page.uploads() {
            let (Some(full), Some(id)) = (upload.key(), upload.upload_id()) else {
                continue;
            };
            let is_old = upload.initiated().and_then(timestamp).is_some_and(|begun| {
                let passed = now.duration_since(begun);
                Duration::try_from(passed).is_ok_and(|passed| passed > age)
            });
            let key = full.strip_prefix(&bucket.prefix).unwrap_or_default();
            if is_old && is_ours(key) {
                bucket.abort(full, id)?;
                count = count.saturating_add(1);
            }
        }
        let next = (
            page.next_key_marker().map(str::to_owned),
            page.next_upload_id_marker().map(str::to_owned),
        );
        if page.is_truncated() != Some(true) || next == marker || next.0.is_none() {
            return Ok(count);
        }
        marker = next;
    }
}

impl Bucket {
    /// Aborts an upload; a missing one is not an error.
    pub(super) fn abort(&self, full: &str, id: &str) -> Result<(), StoreError> {
        let request = self.client.abort_multipart_upload().bucket(&self.name);
        match self.wait(request.key(full).upload_id(id).send()) {
            Ok(_) => Ok(()),
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.status == 404) => {
                Ok(())
            }
            Err(error) => Err(sorted(error, &self.place, full)),
        }
    }
}
