//! A reader of ranges of one object, which stays the same object.
//!
//! Small reads that follow one another are served from a window that doubles as long as they do, so
//! that a whole object is read in few requests and a zip's directory in one or two.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cdh_elfcore::ByteSource;

use super::Bucket;
use super::problem::{Refusal, sorted};
use crate::{ObjectKey, ObjectStat, StoreError};

/// First window: a zip's directory and a page table fit.
const SMALLEST_WINDOW: u64 = 64 << 10;
/// Largest window.
const LARGEST_WINDOW: u64 = 4 << 20;
/// Tries to read one range to its end; each goes on where the last one was cut.
const ATTEMPTS: u32 = 5;
/// First pause between two; doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// Ranges of one object.
pub(super) struct RangeReader {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    len: u64,
    etag: Option<String>,
    window: Mutex<Window>,
}

/// What was read ahead.
#[derive(Default)]
struct Window {
    offset: u64,
    bytes: Bytes,
    /// Length of the next one when reading goes on at this one's end.
    next: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    /// Fills `buf` from `offset` on, as far as it goes.
    fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        let at = offset
            .checked_sub(self.offset)
            .and_then(|at| usize::try_from(at).ok());
        let rest = at.and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        count
    }
}

impl RangeReader {
    pub(super) fn new(bucket: Arc<Bucket>, key: ObjectKey, stat: &ObjectStat) -> Self {
        Self {
            bucket,
            key,
            len: stat.size,
            etag: stat.etag.clone(),
            window: Mutex::default(),
        }
    }

    /// Reads exactly `buf`, which lies within the object.
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let mut done = 0;
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let rest = buf.get_mut(done..).unwrap_or_default();
            let before = done;
            match self.fetch_once(offset.saturating_add(done as u64), rest, &mut done) {
                Ok(()) => return Ok(()),
                Err(StoreError::Unreachable { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
            if done > before {
                pause = PAUSE;
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2);
        }
        Ok(())
    }

    /// One request; `done` grows by what arrived, also when it is cut.
    fn fetch_once(&self, offset: u64, buf: &mut [u8], done: &mut usize) -> Result<(), StoreError> {
        let last = offset.saturating_add(buf.len() as u64).saturating_sub(1);
        let bucket = &self.bucket;
        let cut = |problem: &str| StoreError::Unreachable {
            place: bucket.place.clone(),
            problem: format!("{}: {problem}", self.key),
        };
        let request = bucket
            .client
            .get_object()
            .bucket(&bucket.name)
            .key(bucket.full(&self.key))
            .range(format!("bytes={offset}-{last}"))
            .set_if_match(self.etag.as_ref().map(|etag| format!("\"{etag}\"")));
        bucket.wait(async {
            let mut answer = request.send().await.map_err(|error| {
                match Refusal::of(&error).map(|refusal| refusal.status) {
                    Some(412 | 416) => StoreError::Changed {
                        key: self.key.to_string(),
                    },
                    _ => sorted(error, &bucket.place, self.key.as_str()),
                }
            })?;
            // A server that does not know ranges sends everything: only right from the beginning.
            let expected = format!("bytes {offset}-{last}/");
            let is_range = answer
                .content_range()
                .is_some_and(|range| range.starts_with(&expected));
            if !is_range && offset != 0 {
                return Err(cut("the answer is not the range that was asked for"));
            }
            let mut rest = buf;
            while !rest.is_empty() {
                let chunk = match answer.body.next().await {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => return Err(cut(&error.to_string())),
                    None => return Err(cut("the answer is cut short")),
                };
                let count = chunk.len().min(rest.len());
                let (to, after) = rest.split_at_mut(count);
                to.copy_from_slice(chunk.get(..count).unwrap_or_default());
                *done = done.saturating_add(count);
                rest = after;
            }
            Ok(())
        })
    }
}

impl ByteSource for RangeReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let buf = buf.get_mut(..wanted).unwrap_or_default();
        if buf.is_empty() {
            return Ok(0);
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let count = window.copy(offset, buf);
        let rest = buf.get_mut(count..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(wanted);
        }
        let from = offset.saturating_add(count as u64);
        if rest.len() as u64 >= LARGEST_WINDOW {
            drop(window);
            self.fetch(from, rest).map_err(io::Error::other)?;
            return Ok(wanted);
        }
        let ahead = if from == window.end() && window.next > 0 {
            window.next
        } else {
            SMALLEST_WINDOW
        };
        let size = ahead
            .max(rest.len() as u64)
            .min(self.len.saturating_sub(from));
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(rest.len())];
        self.fetch(from, &mut bytes).map_err(io::Error::other)?;
        *window = Window {
            offset: from,
            bytes: bytes.into(),
            next: size
                .saturating_mul(2)
                .clamp(SMALLEST_WINDOW, LARGEST_WINDOW),
        };
        window.copy(from, rest);
        Ok(wanted)
    }
}
