//! Why a process crashed: `cdh why`, and the first line of a backtrace.

use anyhow::Result;
use cdh_bundle::{DumpId, Manifest, ProcessFacts, SignalFacts, Verdict};
use cdh_cause::{Cause, Fact, Listing};
use serde::Serialize;

use super::line::Line;
use super::{Style, Tone, terminal_line};

/// What `cdh why` shows.
pub struct WhyView<'a> {
    /// Whose cause it is.
    pub manifest: &'a Manifest,
    /// The cause; `None` if there is neither a core nor a stored stack of the crashing thread.
    pub cause: Option<&'a Cause>,
}

/// The cause of a crash.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WhyDocument<'a> {
    /// Id of the dump.
    dump: DumpId,
    /// The process, as in the manifest.
    process: &'a ProcessFacts,
    /// The fatal signal.
    signal: &'a SignalFacts,
    /// Whether the core is complete, and otherwise what cut it, as in the manifest.
    verdict: &'a Verdict,
    /// The cause; `null` if the crashing thread is not known.
    cause: Option<&'a Cause>,
}

/// The sentence, then the facts.
#[must_use]
pub fn why_text(view: &WhyView, style: Style) -> String {
    let mut text = String::new();
    let mut put = |line: Line| {
        line.paint_into(style, &mut text);
        text.push('\n');
    };
    match view.cause {
        Some(cause) => {
            put(Line::of(Tone::Bad, terminal_line(&cause.sentence)));
            if !cause.facts.is_empty() {
                put(Line::default());
            }
            for fact in &cause.facts {
                put(fact_line(fact));
            }
        }
        None => put(Line::of(
            Tone::Bad,
            "The cause is unknown: the dump does not show which thread crashed.",
        )),
    }
    text
}

/// One fact, with its place in the source if the text does not name it.
fn fact_line(fact: &Fact) -> Line {
    let mut line = Line::default();
    line.push(format!("  - {}", terminal_line(&fact.text)));
    let place = fact.evidence.location.as_deref();
    if let Some(place) = place.filter(|place| !fact.text.contains(place)) {
        line.push(" (");
        line.toned(Tone::Place, terminal_line(place));
        line.push(")");
    }
    line
}

/// One JSON document.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn why_json(view: &WhyView) -> Result<String> {
    super::sorted_json(&WhyDocument {
        dump: view.manifest.id,
        process: &view.manifest.process,
        signal: &view.manifest.signal,
        verdict: &view.manifest.verdict,
        cause: view.cause,
    })
}

/// The instructions around a frame, for a screen of its own.
#[must_use]
pub fn listing_text(listing: &Listing, style: Style) -> String {
    let mut text = String::new();
    for line in listing_lines(listing) {
        line.paint_into(style, &mut text);
        text.push('\n');
    }
    text
}

/// The instructions around a frame.
pub(super) fn listing_lines(listing: &Listing) -> Vec<Line> {
    let mut lines = Vec::new();
    if listing.guessed {
        lines.push(Line::of(
            Tone::Dim,
            "      the start of the function is unknown: instructions before the current one may be wrong",
        ));
    }
    for shown in &listing.instructions {
        let mark = if shown.current { ">" } else { " " };
        let text = format!(
            "      {mark} {:#018x} {}",
            shown.address.0,
            terminal_line(&shown.text)
        );
        let mut line = Line::default();
        match shown.current {
            true => line.toned(Tone::Place, text),
            false => line.toned(Tone::Dim, text),
        }
        if !shown.values.is_empty() {
            line.push(format!("   ; {}", terminal_line(&shown.values.join(", "))));
        }
        lines.push(line);
    }
    lines
}
