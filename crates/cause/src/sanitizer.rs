//! Reports of AddressSanitizer and its relatives, which they keep in memory.

use crate::cause::{Cause, Class, Fact};
use crate::classify;
use crate::scene::{Scene, WRITABLE};
use crate::words;

/// Bytes that are searched, and those of one read.
const SEARCHED: u64 = 64 << 20;
const STEP: usize = 1 << 20;
const MARK: &[u8] = b"==ERROR: ";

pub(crate) fn explain(scene: &Scene<'_>) -> Option<Cause> {
    scene.frame_where(|name| {
        [
            "__asan",
            "__sanitizer::",
            "__ubsan",
            "__tsan",
            "__msan",
            "__lsan",
            "__hwasan",
        ]
        .iter()
        .any(|start| name.starts_with(start))
    })?;
    let place = scene.in_culprit();
    let report = report(scene);
    let sentence = match &report {
        Some((_, text)) => format!("A sanitizer found an error{place}: {text}."),
        None => format!("A sanitizer found an error{place} and ended the program."),
    };
    let fact =
        report.map(|(at, text)| Fact::new(format!("its report at {at:#x} begins: {text}")).at(at));
    Some(
        Cause::new(Class::Sanitizer, sentence)
            .with(fact)
            .with(classify::here(scene)),
    )
}

/// The first line of the report of this process: `==PID==ERROR: AddressSanitizer: heap-buffer-overflow …`.
fn report(scene: &Scene<'_>) -> Option<(u64, String)> {
    let mark = [format!("=={}", scene.crash.pid?).as_bytes(), MARK].concat();
    let mut left = SEARCHED;
    let is_plain = |segment: &&cdh_elfcore::Segment| {
        segment.flags & WRITABLE != 0
            && segment.file_size > 0
            && scene.mapped_file(segment.start.0).is_none()
    };
    for segment in scene.crash.segments.iter().filter(is_plain) {
        let mut at = segment.start.0;
        let end = at.saturating_add(segment.file_size);
        while at < end {
            let count = usize::try_from(end.wrapping_sub(at))
                .unwrap_or(STEP)
                .min(STEP);
            left = left.checked_sub(count as u64)?;
            let mut bytes = vec![0; count];
            let known = scene.crash.memory.read(cdh_elfcore::Avma(at), &mut bytes);
            let bytes = bytes.get(..known)?;
            if let Some(found) = bytes.windows(mark.len()).position(|window| window == mark) {
                let line = bytes.get(found.checked_add(mark.len())?..)?;
                let line = line.split(|byte| matches!(*byte, b'\n' | 0)).next()?;
                let text = words::quoted(&String::from_utf8_lossy(line));
                return Some((at.checked_add(found as u64)?, text));
            }
            if known == 0 {
                break;
            }
            at = at.saturating_add(count as u64);
        }
    }
    None
}
