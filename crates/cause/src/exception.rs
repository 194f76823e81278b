//! C++ exceptions that nothing caught: their type and message, from the object that was thrown.
//!
//! The object follows a header of the C++ ABI (`unwind-cxx.h` of libstdc++, `cxa_exception.h` of libc++abi; 64 bits):
//!
//! ```text
//! −80 type_info* | … | 0 _Unwind_Exception: class, cleanup, 2 private words | 32 the object
//! ```

use crate::cause::{Cause, Class, Fact};
use crate::scene::{Scene, WRITABLE};
use crate::words;

use cdh_symbolize::Unwinder;

/// `exception_class`: `GNUCC++\0`, `CLNGC++\0`; the last byte is 1 for an exception that refers to another one.
const CLASSES: [u64; 2] = [0x474e_5543_432b_2b00, 0x434c_4e47_432b_2b00];
const TYPE_BEFORE: u64 = 80;
const OBJECT_AFTER: u64 = 32;
/// Bytes of the stack that are searched.
const SEARCHED: usize = 64 << 10;
/// Frames among which the throwing one is.
const FRAMES: usize = 64;
/// From what a register may hold to the `_Unwind_Exception`: itself, the object, the header, the header with its
/// reference count.
const HEADER_FROM: [i64; 4] = [0, -32, 80, 96];
/// Most base classes in a row.
const BASES: usize = 16;

/// An exception object.
struct Thrown {
    /// Demangled.
    type_name: String,
    /// What `what()` returns, where the object holds it.
    message: Option<String>,
    /// Address of the object.
    at: u64,
}

/// Functions of the C++ runtime that throw or unwind.
fn is_throwing(name: &str) -> bool {
    matches!(
        name,
        "__cxa_throw"
            | "__cxa_rethrow"
            | "std::rethrow_exception"
            | "_Unwind_RaiseException"
            | "_Unwind_Resume"
            | "_Unwind_Resume_or_Rethrow"
            | "__gxx_personality_v0"
            | "__cxa_call_terminate"
            | "__clang_call_terminate"
            | "_Unwind_RaiseException_Phase2"
    )
}

pub(crate) fn explain(scene: &Scene<'_>) -> Option<Cause> {
    let is_terminate = |name: &str| {
        matches!(
            name,
            "std::terminate" | "__cxxabiv1::__terminate" | "std::__terminate"
        )
    };
    let terminate = scene.frame_where(is_terminate);
    let throwing = scene.frame_where(is_throwing);
    let throwing = match (terminate, throwing) {
        (Some(terminate), Some(throwing)) if throwing > terminate => throwing,
        (Some(_), _) => return Some(terminated(scene)),
        // Without its symbols, `terminate` has no name: above the program's own frames, nothing else aborts there.
        (None, Some(throwing)) if scene.own_frame().is_some_and(|own| throwing < own) => throwing,
        (None, _) => return None,
    };
    // Once frames are left, only `_Unwind_Resume` is there: the function that threw is gone.
    let thrown_by = scene.frame_where(|name| {
        matches!(
            name,
            "__cxa_throw" | "__cxa_rethrow" | "std::rethrow_exception"
        )
    });
    let thrower = thrown_by.and_then(|index| scene.own_frame_from(index.saturating_add(1)));
    let by = thrower.and_then(|index| scene.named(index));
    let thrown = find(scene, throwing);
    let what = match &thrown {
        Some(Thrown {
            type_name,
            message: Some(text),
            ..
        }) => format!(
            "an exception of type `{type_name}` with the message `{}`",
            words::quoted(text)
        ),
        Some(Thrown { type_name, .. }) => format!("an exception of type `{type_name}`"),
        None => "a C++ exception".to_owned(),
    };
    let is_refused = scene
        .frame_where(|name| {
            matches!(
                name,
                "__cxa_call_terminate" | "__gxx_personality_v0" | "__clang_call_terminate"
            )
        })
        .is_some();
    let threw = match by {
        Some(name) => format!("{name} threw {what}"),
        None => format!("the program threw {what}"),
    };
    // `throw;` also ends here if there is no exception.
    let is_rethrown = thrown_by.is_some_and(|index| scene.function(index) == Some("__cxa_rethrow"));
    let sentence = match is_refused {
        true => format!(
            "{threw}, and it reached code that must not let exceptions through: a `noexcept` function, or a destructor that ran because of another exception."
        ),
        false if is_rethrown && thrown.is_none() => format!(
            "{threw} again (`throw;`): nothing caught it, or there was no exception to throw."
        ),
        false => format!("{threw}, and nothing caught it."),
    };
    let object = thrown.map(|thrown| {
        Fact::new(format!(
            "the exception object of type `{}` is at {:#x}",
            thrown.type_name, thrown.at
        ))
        .at(thrown.at)
    });
    let place = thrower.and_then(|index| {
        let name = scene.named(index)?;
        let frame = scene.crash.frames.get(index)?;
        let thrown = if is_rethrown {
            "thrown again"
        } else {
            "thrown"
        };
        let text = format!("it was {thrown} in {name}, frame #{}", scene.number(index));
        Some(
            Fact::new(text)
                .at(frame.pc.0)
                .location(scene.location(index)),
        )
    });
    Some(
        Cause::new(Class::UncaughtException, sentence)
            .with(object)
            .with(place),
    )
}

/// `std::terminate` without an exception under way.
fn terminated(scene: &Scene<'_>) -> Cause {
    let who = scene.culprit().unwrap_or_else(|| "the program".to_owned());
    let is_thread =
        scene.frame_where(|name| matches!(name, "std::thread::~thread" | "std::thread::operator="));
    let sentence = match is_thread {
        Some(_) => format!(
            "{who} destroyed a `std::thread` that was still running and neither joined nor detached."
        ),
        None => format!("The C++ runtime ended the program (`std::terminate`), called from {who}."),
    };
    let class = match is_thread {
        Some(_) => Class::RuntimeCheck,
        None => Class::Abort,
    };
    Cause::new(class, sentence).with(crate::classify::here(scene))
}

/// The exception that the function at `index`, which throws or unwinds, works on.
///
/// It has the address in a register that its callees saved. If none of these leads to an exception, the words of
/// the stack above it are searched: the answer counts if they lead to one exception only.
fn find(scene: &Scene<'_>, index: usize) -> Option<Thrown> {
    let pc = scene.crash.frames.get(index)?.pc;
    let (frames, _) = Unwinder::new(scene.crash.modules).unwind_with_registers(
        scene.crash.registers?,
        scene.crash.memory,
        FRAMES,
    );
    let frame = frames.iter().find(|frame| frame.frame.pc == pc)?;
    let saved = frame.registers.named().into_iter();
    let saved = saved.flat_map(|(_, value)| {
        HEADER_FROM
            .iter()
            .map(move |offset| value.wrapping_add_signed(*offset))
    });
    if let Some(thrown) = saved
        .into_iter()
        .find_map(|header| thrown_at(scene, header))
    {
        return Some(thrown);
    }
    let start = scene.sp()?;
    let size = frame.cfa?.0.checked_sub(start)?;
    let mut stack = vec![0; usize::try_from(size).ok()?.min(SEARCHED)];
    let known = scene.read(start, &mut stack);
    let (words, _) = stack.get(..known)?.as_chunks::<8>();
    let mut found: Option<Thrown> = None;
    for word in words {
        let at = u64::from_le_bytes(*word);
        let segment = scene.segment(at).filter(|_| at.is_multiple_of(16));
        if segment.is_none_or(|segment| segment.flags & WRITABLE == 0) {
            continue;
        }
        match (thrown_at(scene, at), &found) {
            (Some(thrown), Some(known)) if thrown.at != known.at => return None,
            (Some(thrown), _) => found = Some(thrown),
            (None, _) => {}
        }
    }
    found
}

fn thrown_at(scene: &Scene<'_>, header: u64) -> Option<Thrown> {
    let class = scene.u64_at(header)?;
    if !CLASSES.contains(&(class & !1)) {
        return None;
    }
    let mut object = header.checked_add(OBJECT_AFTER)?;
    let mut info = scene.u64_at(header.checked_sub(TYPE_BEFORE)?)?;
    if class & 1 != 0 {
        // It refers to the object of the first one.
        object = info;
        info = scene.u64_at(object.checked_sub(OBJECT_AFTER)?.checked_sub(TYPE_BEFORE)?)?;
    }
    let raw = raw_name(scene, info)?;
    Some(Thrown {
        type_name: demangled(&raw)?,
        message: message(scene, info, &raw, object),
        at: object,
    })
}

/// `std::type_info::name()`: the mangled type; `*` before it marks a local type.
fn raw_name(scene: &Scene<'_>, info: u64) -> Option<String> {
    let name = scene.u64_at(info.checked_add(8)?)?;
    let text = scene.text_at(name)?;
    let text = text.strip_prefix('*').unwrap_or(&text);
    let is_mangled = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$'));
    is_mangled.then(|| text.to_owned())
}

fn demangled(raw: &str) -> Option<String> {
    const STRING: &str =
        "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
    let symbol = cpp_demangle::Symbol::new(format!("_ZTS{raw}")).ok()?;
    let text = symbol.demangle().ok()?;
    let name = text
        .strip_prefix("typeinfo name for ")
        .or_else(|| text.strip_prefix("{vtable-info-name} "));
    Some(words::quoted(name?).replace(STRING, "std::string"))
}

/// The message that the object holds: of `std::runtime_error`, `std::logic_error` and what derives from them
/// alone, of a thrown text, of a thrown number.
fn message(scene: &Scene<'_>, info: u64, raw: &str, object: u64) -> Option<String> {
    let pointed = |at: u64| scene.text_at(scene.u64_at(at)?);
    match raw {
        "PKc" | "Pc" => return pointed(object),
        "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE" => return pointed(object),
        "i" => {
            let low = u32::try_from(scene.u64_at(object)? & 0xffff_ffff).ok()?;
            return Some(low.cast_signed().to_string());
        }
        _ => {}
    }
    let mut info = info;
    for _ in 0..BASES {
        let name = raw_name(scene, info)?;
        if matches!(name.as_str(), "St13runtime_error" | "St11logic_error") {
            return pointed(object.checked_add(8)?);
        }
        // `__si_class_type_info`: the only base, at offset 0.
        info = scene.u64_at(info.checked_add(16)?)?;
    }
    None
}
