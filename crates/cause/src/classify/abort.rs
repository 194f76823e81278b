//! Programs that end themselves: assertions, checks, exceptions, panics, `abort`.

use super::{here, libc_message, sent};
use crate::cause::{Cause, Class, Fact};
use crate::scene::Scene;
use crate::{exception, panic_message, sanitizer, words};

pub(super) fn explain(scene: &Scene<'_>) -> Option<Cause> {
    if !sent::is_own_abort(scene) {
        return None;
    }
    sanitizer::explain(scene)
        .or_else(|| {
            scene
                .crash
                .abort_message
                .and_then(|text| libc_message::explain(scene, text))
        })
        .or_else(|| checked(scene))
        .or_else(|| rust(scene))
        .or_else(|| exception::explain(scene))
        .or_else(|| aborted(scene))
}

/// Checks of libraries, known by the function that reports them.
fn checked(scene: &Scene<'_>) -> Option<Cause> {
    let ended_by = |names: &[&str]| scene.ending_where(|name| names.contains(&name));
    if ended_by(&["__stack_chk_fail", "__stack_chk_fail_local"]).is_some() {
        return Some(libc_message::smashed(scene).with(here(scene)));
    }
    if ended_by(&["__cxa_pure_virtual"]).is_some() {
        let who = scene.culprit().unwrap_or_else(|| "The program".to_owned());
        let sentence = format!(
            "{who} called a virtual function on an object that is not fully constructed or already destroyed (a pure virtual call)."
        );
        return Some(Cause::new(Class::PureVirtualCall, sentence).with(here(scene)));
    }
    if ended_by(&[
        "__assert_fail",
        "__assert_fail_base",
        "__assert",
        "__assert_perror_fail",
    ])
    .is_some()
    {
        let place = scene.in_culprit();
        let sentence =
            format!("A check that the program makes of itself (an assertion) failed{place}.");
        return Some(Cause::new(Class::Assertion, sentence).with(here(scene)));
    }
    let library = scene.ending_where(|name| {
        [
            "std::__glibcxx_assert_fail",
            "std::__replacement_assert",
            "__libcpp_verbose_abort",
        ]
        .iter()
        .any(|known| name.ends_with(known.trim_start_matches("std::")))
    });
    if let Some(index) = library {
        let place = scene.in_culprit();
        let check = scene
            .named(index.saturating_add(1))
            .unwrap_or_else(|| "the C++ library".to_owned());
        let sentence = format!(
            "A check of the C++ library failed{place}: {check} was used in a way that it does not allow."
        );
        return Some(Cause::new(Class::RuntimeCheck, sentence).with(here(scene)));
    }
    let glib = scene
        .frame_where(|name| matches!(name, "g_assertion_message" | "g_assertion_message_expr"));
    if glib.is_some() {
        let place = scene.in_culprit();
        let sentence =
            format!("A check that the program makes of itself (a GLib assertion) failed{place}.");
        return Some(Cause::new(Class::Assertion, sentence).with(here(scene)));
    }
    None
}

/// Frames of a Rust panic, without the namespace of newer compilers.
fn is_panic(name: &str) -> bool {
    let name = name.strip_prefix("__rustc::").unwrap_or(name);
    let own = name.strip_prefix("std::panicking::");
    matches!(
        name,
        "rust_begin_unwind" | "rust_panic" | "__rust_start_panic"
    ) || name.starts_with("core::panicking::")
        || own.is_some_and(|name| {
            [
                "begin_panic",
                "panic_handler",
                "panic_with_hook",
                "rust_panic",
            ]
            .iter()
            .any(|start| name.starts_with(start))
        })
}

fn rust(scene: &Scene<'_>) -> Option<Cause> {
    let overflow = scene.frame_where(|name| {
        name.starts_with("std::sys::")
            && name.contains("stack_overflow")
            && name.ends_with("signal_handler")
    });
    if let Some(index) = overflow {
        let own = scene.own_frame_from(index).and_then(|own| scene.named(own));
        let place = own.map_or_else(String::new, |name| format!(" in {name}"));
        let sentence = format!(
            "The stack of a thread is full{place}; the Rust runtime noticed it and ended the program."
        );
        return Some(
            Cause::new(Class::StackOverflow, sentence).with(Fact::new(format!(
                "frame #{} is the handler that the Rust runtime has for full stacks",
                scene.number(index)
            ))),
        );
    }
    let is_out_of_memory = |name: &str| name.starts_with("alloc::alloc::handle_alloc_error");
    if scene.ending_where(is_out_of_memory).is_some() {
        let place = scene.in_culprit();
        let sentence =
            format!("The Rust program could not allocate memory{place}, so its runtime ended it.");
        return Some(Cause::new(Class::Abort, sentence).with(here(scene)));
    }
    scene.frame_where(is_panic)?;
    let message = panic_message::find(scene);
    let place = scene.in_culprit();
    let sentence = match &message {
        Some(found) => format!(
            "The Rust program panicked{place}: {}.",
            found.text.trim_end_matches('.')
        ),
        None => match known_panic(scene) {
            Some(text) => format!("The Rust program panicked{place}: {text}."),
            None => format!("The Rust program panicked{place}."),
        },
    };
    let fact = message.map(|found| {
        Fact::new(format!("the panic message is in memory at {:#x}", found.at)).at(found.at)
    });
    Some(
        Cause::new(Class::RustPanic, sentence)
            .with(fact)
            .with(here(scene)),
    )
}

/// What the function that started the panic means.
fn known_panic(scene: &Scene<'_>) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 12] = [
        ("panic_bounds_check", "an index is out of bounds"),
        ("slice_index_order_fail", "a slice starts after its end"),
        (
            "slice_end_index_len_fail",
            "the end of a slice is out of bounds",
        ),
        (
            "slice_start_index_len_fail",
            "the start of a slice is out of bounds",
        ),
        ("panic_const_div_by_zero", "attempt to divide by zero"),
        (
            "panic_const_rem_by_zero",
            "attempt to calculate the remainder with a divisor of zero",
        ),
        ("panic_const_add_overflow", "attempt to add with overflow"),
        (
            "panic_const_sub_overflow",
            "attempt to subtract with overflow",
        ),
        (
            "panic_const_mul_overflow",
            "attempt to multiply with overflow",
        ),
        ("panic_already_borrowed", "a `RefCell` is already borrowed"),
        (
            "panic_already_mutably_borrowed",
            "a `RefCell` is already mutably borrowed",
        ),
        (
            "assert_failed",
            "an assertion that compares two values failed",
        ),
    ];
    KNOWN.iter().find_map(|(function, text)| {
        let is_it = |name: &str| name.rsplit("::").next() == Some(function);
        scene.frame_where(is_it).map(|_| *text)
    })
}

fn aborted(scene: &Scene<'_>) -> Option<Cause> {
    let by_abort = scene.frame_where(|name| name == "abort" || name == "__GI_abort");
    let message = scene.crash.abort_message.map(words::quoted);
    let fact = message
        .as_ref()
        .map(|text| Fact::new(format!("the C library's last message is: {text}")));
    let name = scene.crash.signal.name();
    let sentence = match (scene.culprit(), by_abort, &message) {
        (Some(who), _, Some(text)) => format!(
            "The C library ended the program{}: {text}.",
            format_args!(" in {who}")
        ),
        (Some(who), Some(abort), None) => match between(scene, abort) {
            Some(library) => format!(
                "The program ended itself on purpose: {library}, which {who} led to, called `abort`."
            ),
            None => format!("The program ended itself on purpose: {who} called `abort`."),
        },
        (Some(who), None, None) if scene.crash.signal.sender.is_some() => {
            match is_raised_directly(scene) {
                true => format!("The program ended itself: {who} raised {name}."),
                // Another thread may have sent it: a signal of the process ends in any thread.
                false if !is_raised(scene) => {
                    format!("The program sent {name} to itself while this thread was in {who}.")
                }
                false => {
                    format!("The program ended itself with {name}, in a call that {who} made.")
                }
            }
        }
        (None, _, Some(text)) => format!("The C library ended the program: {text}."),
        (None, Some(_), None) => {
            "The program ended itself on purpose by calling `abort`.".to_owned()
        }
        (_, None, None) => return None,
    };
    let class = match by_abort.is_some() || message.is_some() {
        true => Class::Abort,
        false => Class::Raised,
    };
    Some(Cause::new(class, sentence).with(fact).with(here(scene)))
}

/// The library function that called `abort`, if it was not the program's own.
fn between(scene: &Scene<'_>, abort: usize) -> Option<String> {
    let caller = abort.checked_add(1)?;
    let own = scene.own_frame()?;
    (caller < own).then(|| match scene.function(caller) {
        Some(name) => format!("`{name}`"),
        None => scene
            .named(caller)
            .unwrap_or_else(|| "a library".to_owned()),
    })
}

/// Whether only functions that send signals are above the program's own.
fn is_raised_directly(scene: &Scene<'_>) -> bool {
    let own = scene.own_frame().unwrap_or(0);
    (0..own).all(|index| scene.function(index).is_some_and(is_raising))
}

/// Whether this thread sent the signal, or has frames without names, which may have.
fn is_raised(scene: &Scene<'_>) -> bool {
    let own = scene.own_frame().unwrap_or(0);
    (0..own).any(|index| scene.function(index).is_none_or(is_raising))
}

fn is_raising(name: &str) -> bool {
    ["raise", "kill", "sigqueue", "__libc_signal"]
        .iter()
        .any(|part| name.contains(part))
}
