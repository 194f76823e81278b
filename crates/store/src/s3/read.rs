//! Reads ranges of one version of an object, as a stream or at random offsets.
//!
//! Small reads are served from a few buffered windows. A window that is read sequentially grows, so
//! that a complete object takes few requests. Other reads request only what they need, and a zip's
//! directory takes one request.

use std::collections::VecDeque;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cdh_elfcore::ByteSource;

use super::Bucket;
use super::problem::{Refusal, sorted};
use crate::{ObjectKey, ObjectStat, StoreError};

/// Size of the first window: a zip's directory and a page table fit.
const SMALLEST_WINDOW: u64 = 64 << 10;
/// Largest window.
const LARGEST_WINDOW: u64 = 4 << 20;
/// Number of cached windows: the zip's directory, a table, and some places of the core.
const WINDOWS: usize = 6;
/// Number of sequential reads before read-ahead starts.
const STREAK: u32 = 2;
/// A caller that requests this much at once knows what it needs, and buffers it itself.
const EXACT: usize = 512 << 10;
/// Pauses between consecutive attempts that returned no bytes; after the last one, there is one
/// more attempt.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_secs(3),
    Duration::from_secs(5),
];
/// How often a waiting caller is asked whether to continue.
const TICK: Duration = Duration::from_millis(100);

/// Receives the bytes of a range in order, and an empty slice from time to time. Breaks to stop.
pub(super) type Sink<'s> = dyn FnMut(&[u8]) -> ControlFlow<()> + 's;

/// Passes `range` of an object to `sink`. If a request breaks off, another one continues.
pub(super) fn stream(
    bucket: &Bucket,
    key: &ObjectKey,
    etag: Option<&str>,
    range: Range<u64>,
    sink: &mut Sink<'_>,
) -> Result<(), StoreError> {
    let mut at = range.start;
    let mut failures = 0;
    while at < range.end {
        let before = at;
        match request(bucket, key, etag, at..range.end, &mut at, sink) {
            Ok(()) => continue,
            Err(error @ StoreError::Unreachable { .. }) => {
                failures = if at > before { 0 } else { failures + 1 };
                let Some(pause) = PAUSES.get(failures) else {
                    return Err(error);
                };
                wait(*pause, sink)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(pause: Duration, sink: &mut Sink<'_>) -> Result<(), StoreError> {
    let begun = Instant::now();
    while begun.elapsed() < pause {
        if sink(&[]).is_break() {
            return Err(StoreError::Stopped);
        }
        std::thread::sleep(TICK.min(pause));
    }
    Ok(())
}

/// One request; `at` advances by the received bytes, also if it breaks off.
fn request(
    bucket: &Bucket,
    key: &ObjectKey,
    etag: Option<&str>,
    range: Range<u64>,
    at: &mut u64,
    sink: &mut Sink<'_>,
) -> Result<(), StoreError> {
    let Range { start, end } = range;
    let last = end.saturating_sub(1);
    let cut = |problem: &str| StoreError::Unreachable {
        place: bucket.place.clone(),
        problem: format!("{key}: {problem}"),
    };
    let request = bucket
        .client
        .get_object()
        .bucket(&bucket.name)
        .key(bucket.full(key))
        .range(format!("bytes={start}-{last}"))
        .set_if_match(etag.map(|etag| format!("\"{etag}\"")));
    bucket.wait(async {
        let mut sending = std::pin::pin!(request.send());
        let answer = loop {
            tokio::select! {
                answer = &mut sending => break answer,
                () = tokio::time::sleep(TICK) => if sink(&[]).is_break() {
                    return Err(StoreError::Stopped);
                },
            }
        };
        let mut answer =
            answer.map_err(
                |error| match Refusal::of(&error).map(|refusal| refusal.status) {
                    Some(412 | 416) => StoreError::Changed {
                        key: key.to_string(),
                    },
                    _ => sorted(error, &bucket.place, key.as_str()),
                },
            )?;
        // A server without ranges sends everything, which is only right from the start.
        let expected = format!("bytes {start}-{last}/");
        let is_range = answer
            .content_range()
            .is_some_and(|range| range.starts_with(&expected));
        if !is_range && start != 0 {
            return Err(cut("the answer is not the range that was asked for"));
        }
        // Not every server honours `If-Match`.
        if let (Some(wanted), Some(found)) = (etag, answer.e_tag())
            && super::bare_etag(found) != wanted
        {
            return Err(StoreError::Changed {
                key: key.to_string(),
            });
        }
        while *at < end {
            let chunk = tokio::select! {
                chunk = answer.body.next() => chunk,
                () = tokio::time::sleep(TICK) => {
                    if sink(&[]).is_break() {
                        return Err(StoreError::Stopped);
                    }
                    continue;
                }
            };
            let chunk = match chunk {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Err(cut(&error.to_string())),
                None => return Err(cut("the answer is cut short")),
            };
            let left = usize::try_from(end.saturating_sub(*at)).unwrap_or(usize::MAX);
            let part = chunk.get(..chunk.len().min(left)).unwrap_or_default();
            if !part.is_empty() && sink(part).is_break() {
                return Err(StoreError::Stopped);
            }
            *at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    })
}

/// Reads an object at any offset.
pub(super) struct RangeReader {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    len: u64,
    etag: Option<String>,
    /// Used last comes last.
    windows: Mutex<VecDeque<Window>>,
}

/// What was read.
#[derive(Clone, Default)]
struct Window {
    offset: u64,
    bytes: Bytes,
    /// Length of the next window if reading continues at the end of this one, and how often it did.
    next: u64,
    streak: u32,
}

impl Window {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    /// Fills `buf` from `offset` on, up to the end of the object.
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
            windows: Mutex::default(),
        }
    }

    /// Reads exactly `buf.len()` bytes, which are within the object.
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let mut rest = buf;
        let mut sink = |chunk: &[u8]| {
            let (to, after) = std::mem::take(&mut rest).split_at_mut(chunk.len());
            to.copy_from_slice(chunk);
            rest = after;
            ControlFlow::Continue(())
        };
        stream(
            &self.bucket,
            &self.key,
            self.etag.as_deref(),
            offset..end,
            &mut sink,
        )
        .map_err(io::Error::other)
    }

    /// Copies bytes from a window, starting at `offset`.
    fn copy_known(&self, offset: u64, buf: &mut [u8]) -> usize {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for index in (0..windows.len()).rev() {
            let count = windows.get(index).map_or(0, |w| w.copy(offset, buf));
            if count > 0 {
                if let Some(used) = windows.remove(index) {
                    windows.push_back(used);
                }
                return count;
            }
        }
        0
    }

    /// Creates a window at `offset` that holds `wanted` bytes or more.
    fn window(&self, offset: u64, wanted: u64) -> io::Result<Window> {
        let before = {
            let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            windows
                .iter()
                .find(|window| window.end() == offset)
                .cloned()
        };
        let streak = before.as_ref().map_or(0, |before| before.streak + 1);
        let ahead = before
            .filter(|_| streak >= STREAK)
            .map_or(SMALLEST_WINDOW, |before| before.next);
        let size = ahead.max(wanted).min(self.len.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.fetch(offset, &mut bytes)?;
        let window = Window {
            offset,
            bytes: bytes.into(),
            next: size
                .saturating_mul(2)
                .clamp(SMALLEST_WINDOW, LARGEST_WINDOW),
            streak,
        };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.push_back(window.clone());
        if windows.len() > WINDOWS {
            windows.pop_front();
        }
        Ok(window)
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
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let count = match self.copy_known(at, rest) {
                0 if rest.len() >= EXACT => {
                    self.fetch(at, rest)?;
                    rest.len()
                }
                0 => self.window(at, rest.len() as u64)?.copy(at, rest),
                count => count,
            };
            if count == 0 {
                break;
            }
            done = done.saturating_add(count);
        }
        Ok(done)
    }
}
