//! What handlers and an agent have of the node's memory, looked at again and again.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(60);
/// Looks until the next one that asks for what is shared, which takes the kernel longer.
const SHARES_EVERY: u32 = 8;

/// KiB of one or more processes.
#[derive(Clone, Copy, Default)]
pub(super) struct Memory {
    /// Resident, each process by itself.
    pub resident: u64,
    /// With what they share counted once.
    pub proportional: u64,
}

/// The most at any time.
#[derive(Clone, Copy, Default)]
pub(super) struct Most {
    /// All handlers together.
    pub handlers: Memory,
    /// The agent's daemon, by the kernel's own count of its peak.
    pub agent: Memory,
    /// Handlers and agent at one time.
    pub together: Memory,
}

impl Memory {
    fn of(process: &Path, with_shares: bool) -> Self {
        Self {
            resident: kib(process, "status", "VmRSS:"),
            proportional: match with_shares {
                true => kib(process, "smaps_rollup", "Pss:"),
                false => 0,
            },
        }
    }

    fn add(&mut self, other: Self) {
        self.resident += other.resident;
        self.proportional += other.proportional;
    }

    fn or_more(&mut self, other: Self) {
        self.resident = self.resident.max(other.resident);
        self.proportional = self.proportional.max(other.proportional);
    }
}

/// Looks until it is stopped, at least once. Handlers are processes with one of these names on their command line;
/// `agent` is the daemon's id.
pub(super) fn watch(names: &[String], agent: Option<u32>, stop: &AtomicBool) -> Most {
    let mut most = Most::default();
    let mut rounds = 0_u32;
    let agent = agent.map(|pid| Path::new("/proc").join(pid.to_string()));
    loop {
        let with_shares = rounds.is_multiple_of(SHARES_EVERY);
        let mut handlers = Memory::default();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let path = entry.path();
            let is_process = entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit);
            if is_process && agent.as_ref() != Some(&path) && is_handler(&path, names) {
                handlers.add(Memory::of(&path, with_shares));
            }
        }
        most.handlers.or_more(handlers);
        if let Some(agent) = &agent {
            let mut own = Memory::of(agent, with_shares);
            let mut together = handlers;
            together.add(own);
            most.together.or_more(together);
            own.resident = own.resident.max(kib(agent, "status", "VmHWM:"));
            most.agent.or_more(own);
        }
        if stop.load(Ordering::Relaxed) {
            return most;
        }
        rounds += 1;
        std::thread::sleep(PAUSE);
    }
}

fn kib(process: &Path, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(process.join(file)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn is_handler(process: &Path, names: &[String]) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let is_crash = line
        .split(' ')
        .next()
        .is_some_and(|program| program.ends_with("/crash"));
    let takes =
        line.contains("systemd-coredump") || names.iter().any(|name| line.contains(name.as_str()));
    takes && !is_crash
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn the_agent_is_counted_by_itself_and_not_among_the_handlers() {
        // No other process has this word on its command line, not even between its fork and its exec.
        let word = format!("cdh-watched-{}", std::process::id());
        let mut watched = Command::new("sh")
            .args(["-c", "echo; read line", &word])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Right after its exec it has hardly any memory.
        let mut line = [0; 1];
        watched
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        let names = [word];
        // The process plays a handler, then the agent. One look that begins after the stop is enough.
        let stop = AtomicBool::new(true);
        let as_handler = watch(&names, None, &stop);
        let as_agent = watch(&names, Some(watched.id()), &stop);
        watched.kill().unwrap();
        watched.wait().unwrap();
        assert!(as_handler.handlers.resident > 100 && as_handler.agent.resident == 0);
        assert_eq!(as_agent.handlers.resident, 0);
        assert!(as_agent.agent.resident > 100 && as_agent.together.proportional > 10);
    }
}
