//! The texts with which glibc ends a process.

use super::here;
use crate::cause::{Cause, Class, Fact};
use crate::scene::Scene;
use crate::words;

pub(super) fn explain(scene: &Scene<'_>, message: &str) -> Option<Cause> {
    let message = words::quoted(message);
    let fact = Fact::new(format!("the C library's last message is: {message}"));
    let cause = assertion(scene, &message)
        .or_else(|| check(scene, &message))
        .or_else(|| allocator(scene, &message))?;
    Some(cause.with(fact).with(here(scene)))
}

/// `PROGRAM: FILE:LINE: FUNCTION: Assertion `EXPRESSION' failed.` (`assert/assert.c`).
fn assertion(scene: &Scene<'_>, message: &str) -> Option<Cause> {
    let (before, rest) = message.split_once("Assertion `")?;
    let (expression, _) = rest.rsplit_once("' failed")?;
    let place = before.trim_end().trim_end_matches(':');
    let stated = place.split(": ").find(|part| {
        part.rsplit_once(':').is_some_and(|(_, line)| {
            !line.is_empty() && line.bytes().all(|digit| digit.is_ascii_digit())
        })
    });
    if stated.is_some_and(|place| {
        place.ends_with_c_file("malloc.c") || place.ends_with_c_file("arena.c")
    }) {
        return Some(corrupted(scene));
    }
    let stated = stated.map(|place| place.rsplit('/').next().unwrap_or(place).to_owned());
    let own = scene.own_frame().and_then(|own| scene.function(own));
    let where_at = match (own, &stated) {
        (Some(name), Some(place)) => format!(" in `{name}` ({place})"),
        (Some(name), None) => format!(" in `{name}`"),
        (None, Some(place)) => format!(" at {place}"),
        (None, None) => String::new(),
    };
    let sentence = format!(
        "A check that the program makes of itself failed{where_at}: the assertion `{expression}` is false."
    );
    Some(
        Cause::new(Class::Assertion, sentence).with(stated.map(|place| {
            Fact::new(format!("the assertion is at {place}")).location(Some(place.clone()))
        })),
    )
}

trait FileAndLine {
    fn ends_with_c_file(&self, file: &str) -> bool;
}

impl FileAndLine for &str {
    /// Whether `FILE:LINE` is in this file of any directory.
    fn ends_with_c_file(&self, file: &str) -> bool {
        let name = self.rsplit_once(':').map_or(*self, |(name, _)| name);
        name.rsplit('/').next() == Some(file)
    }
}

/// `debug/fortify_fail.c` and others.
fn check(scene: &Scene<'_>, message: &str) -> Option<Cause> {
    if message.contains("stack smashing detected") {
        return Some(smashed(scene));
    }
    let who = scene.culprit().unwrap_or_else(|| "the program".to_owned());
    let sentence = if message.contains("buffer overflow detected") {
        let function = (0..scene.crash.frames.len())
            .filter_map(|index| scene.function(index))
            .find_map(|name| name.strip_prefix("__")?.strip_suffix("_chk"));
        let with = function.map_or_else(String::new, |name| format!(" with `{name}`"));
        format!(
            "{who} wrote more{with} than the buffer can hold; the C library noticed it in time and ended the program."
        )
    } else if message.contains("longjmp causes uninitialized stack frame") {
        let sentence = format!("{who} jumped (`longjmp`) to a function that had already returned.");
        return Some(Cause::new(Class::RuntimeCheck, sentence));
    } else if message.contains("%n in writable segment") {
        let sentence = format!(
            "{who} printed with a format that contains `%n` and is not constant, which the C library refuses."
        );
        return Some(Cause::new(Class::RuntimeCheck, sentence));
    } else if let Some(text) =
        message.strip_prefix("The futex facility returned an unexpected error code")
    {
        let _ = text;
        let sentence = format!("{who} used a lock whose memory is not a valid lock.");
        return Some(Cause::new(Class::RuntimeCheck, sentence));
    } else {
        return None;
    };
    Some(Cause::new(Class::BufferOverflow, sentence))
}

/// The function whose local array was overrun.
pub(super) fn smashed(scene: &Scene<'_>) -> Cause {
    let who = scene.culprit().unwrap_or_else(|| "A function".to_owned());
    let sentence = format!(
        "{who}, or a function that it called, wrote past the end of one of its local variables: the guard value behind them on the stack was overwritten."
    );
    Cause::new(Class::StackSmashing, sentence)
}

fn corrupted(scene: &Scene<'_>) -> Cause {
    let place = scene.in_culprit();
    let sentence = format!(
        "The memory allocator found its own data overwritten{place}: some earlier code wrote outside of its memory block, or used a block after it was freed."
    );
    Cause::new(Class::HeapCorruption, sentence)
}

/// `malloc/malloc.c`.
fn allocator(scene: &Scene<'_>, message: &str) -> Option<Cause> {
    let message = message.trim_start_matches(['*', ' ']);
    let who = scene.culprit().unwrap_or_else(|| "The program".to_owned());
    let is = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if is(&[
        "double free detected",
        "double free or corruption (fasttop)",
    ]) {
        let sentence = format!("{who} freed a memory block that was already free.");
        return Some(Cause::new(Class::DoubleFree, sentence));
    }
    if is(&["double free or corruption"]) {
        let sentence = format!(
            "{who} freed a memory block that was already free, or whose allocator data was overwritten."
        );
        return Some(Cause::new(Class::DoubleFree, sentence));
    }
    if [
        "free(): invalid",
        "realloc(): invalid",
        "munmap_chunk()",
        "free(): corrupted",
        "free(): unaligned",
    ]
    .iter()
    .any(|start| message.starts_with(start))
    {
        let did = match message.starts_with("realloc()") {
            true => "passed `realloc`",
            false => "freed",
        };
        let sentence = format!(
            "{who} {did} an address that is not a memory block of the allocator, or whose allocator data was overwritten."
        );
        return Some(Cause::new(Class::InvalidFree, sentence));
    }
    let starts = [
        "malloc",
        "free()",
        "realloc()",
        "corrupted",
        "munmap_chunk",
        "mremap_chunk",
        "unlink",
        "unaligned",
        "break adjusted",
        "invalid fastbin",
        "sysmalloc",
        "Fatal glibc error: malloc",
    ];
    starts
        .iter()
        .any(|start| message.starts_with(start))
        .then(|| corrupted(scene))
}
