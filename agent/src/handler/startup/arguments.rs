//! The handler's command line: what the kernel put in place of the specifiers of the core pattern.
//!
//! Every number is checked, every text is kept as bytes. Nothing here is an error: a value that is
//! missing or makes no sense is absent, and said so in `problems`; without a pid the core on stdin
//! is still worth keeping.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use cdh_bundle::RawText;

/// Values of the specifiers (`man 5 core`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerArguments {
    /// `%P`: process id on the host.
    pub pid: Option<u32>,
    /// `%I`: thread id on the host of the thread that crashed.
    pub tid: Option<u32>,
    /// `%p`: process id in the process's own pid namespace.
    pub namespace_pid: Option<u32>,
    /// `%i`: thread id in the process's own pid namespace.
    pub namespace_tid: Option<u32>,
    /// `%s`: signal.
    pub signal: Option<i32>,
    /// `%t`: seconds since 1970.
    pub time: Option<i64>,
    /// `%d`: dumpable, 2 for setuid programs.
    pub dumpable: Option<u32>,
    /// `%u`: real user id, in the initial user namespace.
    pub uid: Option<u32>,
    /// `%g`: real group id.
    pub gid: Option<u32>,
    /// `%F`: number of a pidfd of the process that was handed to us (Linux 6.16).
    pub pidfd: Option<i32>,
    /// `%h`: node name in the process's UTS namespace; the kernel writes `!` for `/`.
    pub hostname: RawText,
    /// `%e`: `comm` of the crashing thread; the kernel writes `!` for `/`.
    pub name: RawText,
    /// What was missing or made no sense.
    pub problems: Vec<String>,
}

impl HandlerArguments {
    /// Parses the arguments that follow the program's name. The first argument with a letter
    /// counts: a later one can only be part of a text that an old kernel split.
    #[must_use]
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut parsed = Self::default();
        let mut arguments = arguments.into_iter().map(OsString::into_vec).peekable();
        let mut values: [Option<Vec<u8>>; 128] = [const { None }; 128];
        while let Some(argument) = arguments.next() {
            let Some((&letter, value)) = argument.split_first() else {
                continue;
            };
            let mut value = value.to_vec();
            let Some(slot) = values
                .get_mut(usize::from(letter))
                .filter(|slot| slot.is_none())
            else {
                continue;
            };
            // Texts stand last and may hold spaces, at which kernels before 5.3 split them.
            let goes_on = |next: &Vec<u8>| match letter {
                b'e' => true,
                b'h' => next.first() != Some(&b'e'),
                _ => false,
            };
            while let Some(more) = arguments.next_if(goes_on) {
                value.push(b' ');
                value.extend_from_slice(&more);
            }
            *slot = Some(value);
        }
        let mut take = |letter: u8| values.get_mut(usize::from(letter)).and_then(Option::take);
        parsed.hostname = take(b'h').map(RawText::new).unwrap_or_default();
        parsed.name = take(b'e').map(RawText::new).unwrap_or_default();
        // Older kernels put nothing in its place.
        parsed.pidfd = take(b'F')
            .and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok())
            .filter(|number| *number > 2);
        let mut number = |letter: u8, low: i64, high: i64| -> Option<i64> {
            let value = take(letter);
            let found = value
                .as_deref()
                .and_then(|value| std::str::from_utf8(value).ok());
            let found = found.and_then(|text| text.parse::<i64>().ok());
            let found = found.filter(|number| (low..=high).contains(number));
            if found.is_none() {
                let value = RawText::new(value.unwrap_or_default());
                parsed
                    .problems
                    .push(format!("`%{}` is `{value}`", char::from(letter)));
            }
            found
        };
        let pid_max = i64::from(i32::MAX);
        let id_max = i64::from(u32::MAX);
        let id = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
        parsed.pid = id(number(b'P', 1, pid_max));
        parsed.tid = id(number(b'I', 1, pid_max));
        parsed.namespace_pid = id(number(b'p', 1, pid_max));
        parsed.namespace_tid = id(number(b'i', 1, pid_max));
        parsed.signal = number(b's', 1, 64).and_then(|number| i32::try_from(number).ok());
        parsed.time = number(b't', 0, i64::from(u32::MAX) * 4);
        parsed.dumpable = id(number(b'd', 0, 2));
        parsed.uid = id(number(b'u', 0, id_max));
        parsed.gid = id(number(b'g', 0, id_max));
        parsed
    }

    /// Whether the only argument is `option`.
    #[must_use]
    pub fn is_only(arguments: &[OsString], option: &str) -> bool {
        matches!(arguments, [only] if only.as_bytes() == option.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&[u8]]) -> HandlerArguments {
        HandlerArguments::parse(arguments.iter().map(|one| OsString::from_vec(one.to_vec())))
    }

    const NUMBERS: [&[u8]; 9] = [
        b"P4711",
        b"I4712",
        b"p1",
        b"i2",
        b"s11",
        b"t1700000000",
        b"d1",
        b"u0",
        b"g4294967294",
    ];

    fn with_texts(texts: &[&[u8]]) -> HandlerArguments {
        let all: Vec<&[u8]> = NUMBERS.iter().chain(texts).copied().collect();
        parse(&all)
    }

    #[test]
    fn the_kernels_line_is_understood() {
        let found = with_texts(&[b"hweb-1", b"eapi"]);
        assert_eq!((found.pid, found.tid), (Some(4711), Some(4712)));
        assert_eq!(
            (found.namespace_pid, found.namespace_tid),
            (Some(1), Some(2))
        );
        assert_eq!((found.signal, found.time), (Some(11), Some(1_700_000_000)));
        assert_eq!(
            (found.dumpable, found.uid, found.gid),
            (Some(1), Some(0), Some(4_294_967_294))
        );
        assert_eq!(
            (found.hostname, found.name),
            (RawText::from("web-1"), RawText::from("api"))
        );
        assert!(found.problems.is_empty(), "{:?}", found.problems);
    }

    #[test]
    fn a_pidfd_is_taken_where_there_is_one_and_its_absence_is_no_problem() {
        let pidfd = |text: &[u8]| {
            let found = with_texts(&[text, b"hweb-1", b"eapi"]);
            assert!(found.problems.is_empty(), "{:?}", found.problems);
            found.pidfd
        };
        assert_eq!(pidfd(b"F3"), Some(3));
        for absent in [&b"F"[..], b"F-1", b"F0", b"Fx", b"F99999999999"] {
            assert_eq!(pidfd(absent), None);
        }
    }

    #[test]
    fn texts_keep_every_byte_and_cannot_pose_as_other_arguments() {
        let found = with_texts(&[b"hx P1\n", b"e\xff; \"rm\" P99 s9"]);
        assert_eq!(found.pid, Some(4711));
        assert_eq!(found.hostname.as_bytes(), b"x P1\n");
        assert_eq!(found.name.as_bytes(), b"\xff; \"rm\" P99 s9");
    }

    #[test]
    fn texts_that_an_old_kernel_split_are_joined() {
        let found = with_texts(&[b"hmy", b"P1", b"host", b"emy", b"P2", b"eprogram"]);
        assert_eq!(found.hostname.as_bytes(), b"my P1 host");
        assert_eq!(found.name.as_bytes(), b"my P2 eprogram");
        assert_eq!(found.pid, Some(4711));
    }

    #[test]
    fn numbers_that_make_no_sense_are_absent_and_named() {
        let found = parse(&[
            b"P0", b"I-1", b"p12x", b"s65", b"d3", b"", b"u+1", b"\xff1", b"e",
        ]);
        assert_eq!(found.pid, None);
        assert_eq!(found.signal, None);
        assert_eq!(found.problems.len(), 8, "{:?}", found.problems);
        assert!(
            found.problems.contains(&"`%p` is `12x`".to_owned()),
            "{:?}",
            found.problems
        );
        assert_eq!(parse(&[]).problems.len(), 9);
    }
}
