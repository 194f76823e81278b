//! From the signal to the rules that can explain it.
//!
//! A rule returns `None` unless the core proves what it would say.

mod abort;
mod access;
mod arithmetic;
mod control;
mod illegal;
mod libc_message;
mod overflow;
mod sent;

use crate::cause::{Cause, Class, Fact};
use crate::crash::Crash;
use crate::scene::Scene;
use crate::words;

pub(crate) const SIGILL: i32 = 4;
pub(crate) const SIGTRAP: i32 = 5;
pub(crate) const SIGABRT: i32 = 6;
pub(crate) const SIGBUS: i32 = 7;
pub(crate) const SIGFPE: i32 = 8;
pub(crate) const SIGSEGV: i32 = 11;
pub(crate) const SIGALRM: i32 = 14;
pub(crate) const SIGXCPU: i32 = 24;
pub(crate) const SIGXFSZ: i32 = 25;
pub(crate) const SIGSYS: i32 = 31;
/// `si_code` of signals that the kernel raises without details.
pub(crate) const SI_KERNEL: i32 = 0x80;

pub(crate) fn explain(crash: &Crash<'_>) -> Cause {
    let scene = Scene { crash };
    let mut cause = known(&scene).unwrap_or_else(|| unknown(&scene));
    // The sentence and the instruction say it already.
    if cause
        .facts
        .iter()
        .any(|fact| fact.evidence.instruction.is_some())
    {
        cause
            .facts
            .retain(|fact| !fact.text.starts_with(IN_FRAME_0));
    }
    cause
}

/// Start of the fact that says only in which function frame 0 is.
const IN_FRAME_0: &str = "the program was in ";

fn known(scene: &Scene<'_>) -> Option<Cause> {
    if let Some(overflow) = scene.crash.overflow {
        return Some(overflow::explain(scene, overflow));
    }
    if let Some(failure) = scene.crash.runtime_failure {
        return Some(runtime_failure(scene, failure));
    }
    // Signals of programs that end themselves: of no process, or of their own.
    if let Some(cause) = abort::explain(scene) {
        return Some(cause);
    }
    if let Some(cause) = sent::explain(scene) {
        return Some(cause);
    }
    match scene.crash.signal.number {
        SIGSEGV => access::segv(scene),
        SIGBUS => access::bus(scene),
        SIGFPE => arithmetic::explain(scene),
        SIGILL => illegal::explain(scene),
        SIGTRAP => illegal::trap(scene),
        SIGSYS => sent::seccomp(scene),
        _ => None,
    }
}

fn runtime_failure(scene: &Scene<'_>, failure: crate::RuntimeFailure<'_>) -> Cause {
    let message = words::quoted(failure.message);
    let place = scene.in_culprit();
    let language = failure.language;
    let what = match message.strip_prefix("panic: ") {
        Some(text) => format!("The {language} program panicked{place}: {text}"),
        None => format!("The {language} runtime ended the program{place}: {message}"),
    };
    let end = if what.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    let signal = failure.signal.map(|signal| {
        let signal = words::quoted(signal);
        Fact::new(format!("the runtime received the signal {signal}"))
    });
    Cause::new(Class::RuntimeError, format!("{what}{end}"))
        .with(signal)
        .with(here(scene))
}

/// What the signal says, and nothing else.
fn unknown(scene: &Scene<'_>) -> Cause {
    let signal = &scene.crash.signal;
    if signal.number == 0 {
        let sentence =
            "The core records no fatal signal: the process was probably alive when it was written.";
        return Cause::new(Class::Unknown, sentence);
    }
    let place = match scene.named(0) {
        Some(_) => format!(" in {}", scene.actor().trim_end_matches(',')),
        None => String::new(),
    };
    let sentence = format!(
        "{} ended the program{place}; the core does not show why.",
        signal.name()
    );
    Cause::new(Class::Unknown, sentence).with(Fact::new(signal.describe()))
}

/// Where in the program it was.
pub(crate) fn here(scene: &Scene<'_>) -> Option<Fact> {
    let own = scene.own_frame()?;
    scene.function(own)?;
    let frame = scene.crash.frames.get(own)?;
    let name = scene.named(own)?;
    let text = match own {
        0 => format!("{IN_FRAME_0}{name}"),
        _ => format!(
            "the innermost function of the program itself is {name}, frame #{}",
            scene.number(own)
        ),
    };
    Some(Fact::new(text).at(frame.pc.0).location(scene.location(own)))
}
