//! How eagerly the handler runs: first before everybody else, for what it wants to hold may be gone
//! in a moment; then, as long as the process waits for it, like the process itself did; then behind
//! everybody else, for the node has other work.

#![allow(unsafe_code)]

/// `IOPRIO_WHO_PROCESS` (`ioprio_set(2)`).
const WHO_PROCESS: libc::c_int = 1;
/// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7)`: the least of the ordinary class. The idle class may
/// starve, and with it the process that waits for us.
const LEAST_BEST_EFFORT: libc::c_int = (2 << 13) | 7;
/// Niceness before the memory is held.
const FIRST: libc::c_int = -20;
/// Niceness after.
const LAST: libc::c_int = 10;

/// Before everybody else. Where that is not allowed, nothing changes.
pub(crate) fn raise() {
    set_nice(FIRST);
}

/// As any process.
pub(crate) fn restore() {
    set_nice(0);
}

/// Behind everybody else.
pub(crate) fn lower() {
    set_nice(LAST);
    // SAFETY: a system call without pointers.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, LEAST_BEST_EFFORT) };
}

fn set_nice(nice: libc::c_int) {
    // SAFETY: a system call without pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}
