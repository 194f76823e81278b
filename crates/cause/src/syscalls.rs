//! Names of system calls. The tables are those of the kernel's headers `asm/unistd_64.h` and `asm-generic/unistd.h`.

use cdh_elfcore::Machine;

const X86_64: &str = include_str!("syscalls_x86_64.txt");
const AARCH64: &str = include_str!("syscalls_aarch64.txt");

/// The name of the system call with this number.
pub(crate) fn name(machine: Machine, number: u64) -> Option<&'static str> {
    let table = match machine {
        Machine::X86_64 => X86_64,
        Machine::Aarch64 => AARCH64,
        _ => return None,
    };
    let of = |line: &'static str| line.split_once(' ');
    let found = table.lines().filter_map(of);
    let mut found = found.filter(|(known, _)| known.parse() == Ok(number));
    found.next().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_have_the_names_of_their_machine() {
        assert_eq!(name(Machine::X86_64, 1), Some("write"));
        assert_eq!(name(Machine::X86_64, 435), Some("clone3"));
        assert_eq!(name(Machine::Aarch64, 64), Some("write"));
        assert_eq!(name(Machine::Aarch64, 435), Some("clone3"));
        assert_eq!(name(Machine::X86_64, 99_999), None);
    }
}
