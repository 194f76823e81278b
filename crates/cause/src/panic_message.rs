//! The message of a Rust panic. The standard library formats it into a buffer on the stack before it prints it:
//!
//! ```text
//! \nthread 'main' panicked at src/main.rs:5:5:\nindex out of bounds: the len is 3 but the index is 9\n…
//! ```
//!
//! The function that starts a panic also keeps the message for handlers: as a `String`, or as a `&str` if it is
//! constant (`begin_panic_handler` in `library/std/src/panicking.rs`).

use crate::scene::{Scene, WRITABLE};
use crate::words;

const MARK: &[u8] = b" panicked at ";
/// Bytes of the stack below and above its pointer that are searched: the buffer's function has returned.
const BELOW: u64 = 64 << 10;
const SEARCHED: usize = 128 << 10;
/// Bytes of the buffer (`default_hook` of the standard library).
const BUFFER: usize = 512;
/// Largest frame and longest message that are looked at.
const FRAME: u64 = 4 << 10;
const LONGEST: u64 = 4 << 10;

/// A panic message.
pub(crate) struct PanicMessage {
    /// The message.
    pub(crate) text: String,
    /// Where it was found.
    pub(crate) at: u64,
}

/// The message of the panic that the frames show.
pub(crate) fn find(scene: &Scene<'_>) -> Option<PanicMessage> {
    printed(scene).or_else(|| kept(scene))
}

/// From the buffer: its place is that of one of the frames.
fn printed(scene: &Scene<'_>) -> Option<PanicMessage> {
    let stack = scene.stack()?;
    let start = scene.sp()?.saturating_sub(BELOW).max(stack.start.0);
    let mut bytes = vec![0; SEARCHED];
    let known = scene.read(start, &mut bytes);
    let bytes = bytes.get(..known)?;
    let places: Vec<String> = (0..scene.crash.frames.len())
        .filter_map(|index| scene.location(index))
        .collect();
    let mut from = 0;
    while let Some(found) = position(bytes.get(from..)?, MARK) {
        let begin = from.checked_add(found)?.checked_add(MARK.len())?;
        let end = begin.saturating_add(BUFFER).min(bytes.len());
        if let Some((place, text)) = parse(bytes.get(begin..end)?)
            && places.contains(&place)
        {
            let at = start.checked_add(begin as u64)?;
            return Some(PanicMessage { text, at });
        }
        from = begin;
    }
    None
}

/// From the frame of the function that starts the panic, if there is one text in it only.
fn kept(scene: &Scene<'_>) -> Option<PanicMessage> {
    let is_start = |name: &str| name.contains("panic_handler") && name.contains("closure");
    let range = scene.stack_of(scene.frame_where(is_start)?)?;
    let size = range.end.checked_sub(range.start)?.min(FRAME);
    let word = |index: u64| scene.u64_at(range.start.checked_add(index.checked_mul(8)?)?);
    let words: Vec<u64> = (0..size / 8).filter_map(word).collect();
    let strings = words.windows(3).filter_map(|three| match *three {
        [capacity, at, length] if length <= capacity && capacity <= LONGEST => {
            text(scene, at, length).filter(|_| is_writable(scene, at))
        }
        _ => None,
    });
    let constants = words.windows(2).filter_map(|two| match *two {
        [at, length] => text(scene, at, length).filter(|_| !is_writable(scene, at)),
        _ => None,
    });
    only(strings).or_else(|| only(constants))
}

fn is_writable(scene: &Scene<'_>, at: u64) -> bool {
    let segment = scene.segment(at);
    segment.is_some_and(|segment| segment.flags & WRITABLE != 0)
}

/// The text, unless there are several.
fn only(mut found: impl Iterator<Item = PanicMessage>) -> Option<PanicMessage> {
    let first = found.next()?;
    found.all(|other| other.text == first.text).then_some(first)
}

fn text(scene: &Scene<'_>, at: u64, length: u64) -> Option<PanicMessage> {
    if !(1..=LONGEST).contains(&length) || scene.segment(at).is_none() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    if scene.read(at, &mut bytes) != bytes.len() {
        return None;
    }
    let text = String::from_utf8(bytes).ok()?;
    let is_shown = |letter: char| !letter.is_control() || letter.is_whitespace();
    let is_text = text.chars().all(is_shown);
    let text = words::quoted(&text);
    (is_text && !text.is_empty()).then_some(PanicMessage { text, at })
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

/// `FILE:LINE:COLUMN:\nMESSAGE`.
fn parse(bytes: &[u8]) -> Option<(String, String)> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = String::from_utf8_lossy(bytes.get(..end.unwrap_or(bytes.len()))?);
    let (place, message) = text.split_once(":\n")?;
    let mut parts = place.rsplitn(3, ':');
    let (column, line, file) = (parts.next()?, parts.next()?, parts.next()?);
    column.parse::<u32>().ok()?;
    line.parse::<u32>().ok()?;
    let file = file.rsplit('/').next()?;
    let message = message.split("\nnote: ").next()?;
    let message = message.split("\nstack backtrace:").next()?;
    let message = words::quoted(message);
    (!message.is_empty()).then(|| (format!("{file}:{line}"), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_messages_are_split_into_place_and_text() {
        let (place, text) = parse(b"src/main.rs:5:7:\nindex out of bounds\nnote: run\n").unwrap();
        assert_eq!(
            (place.as_str(), text.as_str()),
            ("main.rs:5", "index out of bounds")
        );
        assert!(parse(b"nothing").is_none() && parse(b"a:b:c:\nx").is_none());
    }
}
