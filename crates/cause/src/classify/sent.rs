//! Signals that are not faults: sent by a process, by a limit, by a timer, by seccomp.

use cdh_elfcore::Machine;

use super::{SI_KERNEL, SIGABRT, SIGALRM, SIGSYS, SIGXCPU, SIGXFSZ, here};
use crate::cause::{Cause, Class, Fact};
use crate::scene::Scene;
use crate::syscalls;

/// DWARF numbers of the registers that hold a system call's number.
const RAX: u16 = 0;
const X8: u16 = 8;
const SYS_SECCOMP: i32 = 1;
const SI_TIMER: i32 = -2;
const SI_TKILL: i32 = -6;

pub(super) fn explain(scene: &Scene<'_>) -> Option<Cause> {
    let signal = scene.crash.signal;
    let name = signal.name();
    let place = while_in(scene);
    let described = Fact::new(signal.describe());
    if let Some(limit) = limit(scene) {
        return Some(limit.with(described).with(here(scene)));
    }
    if signal.number == SIGALRM && matches!(signal.code, Some(SI_KERNEL | SI_TIMER)) {
        let sentence =
            format!("A timer that the program had set expired{place}, and nothing handled {name}.");
        return Some(
            Cause::new(Class::Timer, sentence)
                .with(described)
                .with(here(scene)),
        );
    }
    let (pid, uid) = signal.sender?;
    let own = scene.crash.pid;
    let (class, sentence) = match pid {
        // Of another pid namespace, such as the host's.
        0 => (
            Class::SentByProcess,
            format!(
                "A process that the program cannot see, such as one outside of its container, sent {name} to it{place}: it did not crash by itself."
            ),
        ),
        _ if own.is_some_and(|own| i64::from(own) == i64::from(pid)) => (
            Class::Raised,
            format!("The program sent {name} to itself{place}."),
        ),
        _ if own.is_none() => return None,
        _ => (
            Class::SentByProcess,
            format!(
                "Process {pid} (user {uid}) sent {name} to the program{place}: it did not crash by itself."
            ),
        ),
    };
    let is_watchdog = pid == 1 && signal.number == SIGABRT;
    let init = Fact::new(
        "process 1 is the init process: systemd sends SIGABRT to a service that misses its watchdog deadline (`WatchdogSec=`)",
    );
    Some(
        Cause::new(class, sentence)
            .with(described)
            .with(is_watchdog.then_some(init))
            .with(here(scene)),
    )
}

/// ` while it was in f (file:line)`, empty if the function is unknown.
fn while_in(scene: &Scene<'_>) -> String {
    let place = scene.in_culprit();
    match place.is_empty() {
        true => place,
        false => format!(" while it was{place}"),
    }
}

fn limit(scene: &Scene<'_>) -> Option<Cause> {
    let signal = scene.crash.signal;
    let by_kernel = signal.code == Some(SI_KERNEL);
    let by_itself = signal.sender.is_some_and(|(pid, _)| {
        scene
            .crash
            .pid
            .is_some_and(|own| i64::from(own) == i64::from(pid))
    });
    let place = while_in(scene);
    let sentence = match signal.number {
        SIGXCPU if by_kernel => {
            format!("The program used all the CPU time that its limit (`ulimit -t`) allows{place}.")
        }
        // The kernel sends it on behalf of the process that writes.
        SIGXFSZ if (by_kernel || by_itself) && is_writing(scene) => {
            format!(
                "The program wrote a file that is larger than its limit (`ulimit -f`) allows{place}."
            )
        }
        _ => return None,
    };
    Some(Cause::new(Class::ResourceLimit, sentence))
}

/// Whether the thread is behind a system call that makes a file longer.
fn is_writing(scene: &Scene<'_>) -> bool {
    let call = last_call_name(scene);
    // The number is lost once the call has returned; the function shows it.
    let names = [
        "write",
        "pwrite",
        "ftruncate",
        "truncate",
        "fallocate",
        "sendfile",
        "copy_file_range",
    ];
    let is_one = |name: &str| {
        names
            .iter()
            .any(|known| name.trim_start_matches('_').contains(known))
    };
    call.is_some_and(is_one) || scene.function(0).is_some_and(is_one)
}

fn number(scene: &Scene<'_>) -> Option<u64> {
    let registers = scene.crash.registers?;
    let number = match scene.crash.machine {
        Machine::X86_64 => RAX,
        Machine::Aarch64 => X8,
        _ => return None,
    };
    registers.get(number)
}

/// The name of the system call that the thread is behind.
fn last_call_name(scene: &Scene<'_>) -> Option<&'static str> {
    /// `syscall`, `svc #0`.
    const X86_64: [u8; 2] = [0x0f, 0x05];
    const AARCH64: [u8; 4] = [0x01, 0x00, 0x00, 0xd4];
    let expected: &[u8] = match scene.crash.machine {
        Machine::X86_64 => &X86_64,
        Machine::Aarch64 => &AARCH64,
        _ => return None,
    };
    let at = scene.pc()?.checked_sub(expected.len() as u64)?;
    let mut bytes = [0; 4];
    let bytes = bytes.get_mut(..expected.len())?;
    if scene.read(at, bytes) != expected.len() || bytes != expected {
        return None;
    }
    syscalls::name(scene.crash.machine, number(scene)?)
}

/// SIGSYS: the kernel restores the number of the refused call.
pub(super) fn seccomp(scene: &Scene<'_>) -> Option<Cause> {
    let signal = scene.crash.signal;
    if signal.number != SIGSYS || signal.code != Some(SYS_SECCOMP) {
        return None;
    }
    let place = scene.in_culprit();
    let name = last_call_name(scene);
    let sentence = match name {
        Some(name) => {
            format!(
                "The seccomp filter of the program does not allow the system call `{name}`{place}."
            )
        }
        None => format!("The seccomp filter of the program does not allow a system call{place}."),
    };
    let register = match scene.crash.machine {
        Machine::X86_64 => "rax",
        _ => "x8",
    };
    let fact = name.zip(number(scene)).map(|(name, number)| {
        Fact::new(format!("the number in `{register}` is {number}, `{name}`")).register(register)
    });
    Some(
        Cause::new(Class::Seccomp, sentence)
            .with(fact)
            .with(here(scene)),
    )
}

/// Whether the signal is one by which a process ends itself.
pub(super) fn is_own_abort(scene: &Scene<'_>) -> bool {
    let signal = scene.crash.signal;
    let own = scene.crash.pid;
    let by_itself = match (signal.sender, signal.code) {
        (Some((pid, _)), _) => own.is_none_or(|own| i64::from(own) == i64::from(pid)),
        // The sender is unknown, and only `tgkill` is certain to be the process itself.
        (None, code) => code.is_none_or(|code| code == SI_TKILL),
    };
    signal.number == SIGABRT && by_itself
}
