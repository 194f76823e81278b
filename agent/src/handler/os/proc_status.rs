//! Reads single values from the text of `/proc/<pid>/status`, `/proc/<pid>/stat` and `/proc/meminfo`.
//!
//! The text can contain a name that the process chose, so every field is found by its position or by its
//! complete name. Nothing here opens a file of the crashed process.

use std::path::Path;

use jiff::Timestamp;

/// Value of a field of `/proc/<pid>/status`.
#[must_use]
pub(crate) fn status_field<'a>(status: &'a [u8], name: &str) -> Option<&'a [u8]> {
    status.split(|&byte| byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        Some(value.trim_ascii())
    })
}

/// An id in the innermost pid namespace, from a thread's `status`: `NSpid` is that of the thread,
/// `NStgid` that of its process.
#[must_use]
pub(crate) fn innermost_id(status: &[u8], field: &str) -> Option<u32> {
    let ids = std::str::from_utf8(status_field(status, field)?).ok()?;
    ids.split_whitespace().last()?.parse().ok()
}

/// Addresses in the stack of the first thread and of this one: fields 28 and 29 of `/proc/<pid>/stat`. The
/// kernel shows field 29 of a process that is being dumped.
#[must_use]
pub(crate) fn stack_addresses(stat: &[u8]) -> Vec<u64> {
    let fields = [28, 29].map(|number| stat_field(stat, number));
    let addresses = fields.into_iter().flatten();
    addresses.filter(|address| *address != 0).collect()
}

/// Field 52 of `/proc/<pid>/stat` where field 3 is `Z`.
pub(crate) fn zombie_exit_code(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = stat
        .get(end.checked_add(1)?..)?
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let is_zombie = fields.next()? == b"Z";
    let code = std::str::from_utf8(fields.nth(52 - 4)?).ok()?.parse().ok();
    code.filter(|_| is_zombie)
}

/// Field 22 of `/proc/<pid>/stat`.
pub(crate) fn start_ticks(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)
}

/// A number of `/proc/<pid>/stat`, counted from 1. The second field is the name in parentheses and may
/// hold both spaces and parentheses, so fields are counted from the last closing one.
fn stat_field(stat: &[u8], number: usize) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = stat.get(end.checked_add(1)?..)?;
    let mut fields = rest
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let field = fields.nth(number.checked_sub(3)?)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// A field in kB of `/proc/meminfo` or `/proc/<pid>/status`.
#[must_use]
pub(crate) fn kib(text: &[u8], field: &str) -> Option<u64> {
    let value = std::str::from_utf8(status_field(text, field)?).ok()?;
    value.strip_suffix("kB")?.trim().parse().ok()
}

/// When a process began that began `ticks` after the boot.
pub(crate) fn started_at(ticks: u64) -> Option<Timestamp> {
    let stat = std::fs::read_to_string(Path::new("/proc/stat")).ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot: i64 = boot.trim().parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    let seconds = i64::try_from(ticks.checked_div(per_second)?).ok()?;
    Timestamp::from_second(boot.checked_add(seconds)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_a_name_that_imitates_the_format() {
        let stat = b"42 (a) S 1 (b c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21\n";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(start_ticks(b"42 (a) S 1 2"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn the_exit_code_of_a_zombie_is_its_last_field() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 3"])
            .spawn()
            .unwrap();
        let path = format!("/proc/{}/stat", child.id());
        let code = loop {
            if let Some(code) = zombie_exit_code(&std::fs::read(&path).unwrap()) {
                break code;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        child.wait().unwrap();
        assert_eq!(code, 3 << 8);
        assert_eq!(
            zombie_exit_code(&std::fs::read("/proc/self/stat").unwrap()),
            None
        );
    }

    #[test]
    fn status_fields_are_whole_names() {
        let status = b"Name:\tx\nSigPnd:\t0\nShdPnd:\t0000000000000100\n";
        assert_eq!(
            status_field(status, "ShdPnd"),
            Some(&b"0000000000000100"[..])
        );
        assert_eq!(status_field(status, "Pnd"), None);
        assert_eq!(
            innermost_id(b"Pid:\t9\nNSpid:\t4711\t17\t3\n", "NSpid"),
            Some(3)
        );
        assert_eq!(innermost_id(b"NSpid:\t\n", "NSpid"), None);
    }

    #[test]
    fn this_process_began_before_now() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let ticks = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .nth(19)
            .unwrap();
        let began = started_at(ticks.parse().unwrap()).unwrap();
        let age = Timestamp::now().as_second() - began.as_second();
        assert!((-1..86_400).contains(&age), "{age}");
    }
}
