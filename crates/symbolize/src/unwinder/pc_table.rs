//! Frame sizes of Go functions from Go's own table. A stripped Go program has no call frame information, and small
//! functions have no frame pointer of their own: by the frame pointer alone, their callers are lost.
//!
//! Go's stack pointer is constant between calls, so that the table needs one number for an address
//! (`gentraceback` in `runtime/traceback.go`).

use cdh_elfcore::{Avma, Machine};

use super::Unwinder;
use super::cfi::Rule;
use crate::go::GoTable;

/// DWARF numbers: x86_64 rbp, rsp and the return address; aarch64 x29, x30 and sp.
const RBP: u16 = 6;
const RSP: u16 = 7;
const X86_RETURN: u16 = 16;
const X29: u16 = 29;
const X30: u16 = 30;
const SP: u16 = 31;

impl Unwinder<'_> {
    /// The rule for an address in Go code; `None` elsewhere.
    pub(super) fn rule_of_go(&self, lookup: Avma, machine: Machine) -> Option<Rule> {
        let place = self.places.get(self.module_at(lookup)?)?;
        let object = place.loaded.object.as_ref()?;
        let at = lookup.0.wrapping_sub(place.bias?);
        let table = place.go.get_or_init(|| GoTable::open(object)).as_ref()?;
        let frame = table.frame(at)?;
        let size = i64::try_from(frame.size).ok()?;
        let (cfa_register, cfa_offset, saved, return_address) = match machine {
            // The call pushed the return address; the frame pointer is saved below it.
            Machine::X86_64 => {
                let frame_pointer = (size > 0).then_some((RBP, -16));
                let saved = [(X86_RETURN, -8)]
                    .into_iter()
                    .chain(frame_pointer)
                    .collect();
                (RSP, size.checked_add(8)?, saved, X86_RETURN)
            }
            // Link register at the bottom of the frame, frame pointer below it. A leaf keeps both in registers.
            Machine::Aarch64 => {
                let bottom = size.checked_neg()?;
                let saved = [(X30, bottom), (X29, bottom.checked_sub(8)?)];
                (
                    SP,
                    size,
                    saved.into_iter().filter(|_| size > 0).collect(),
                    X30,
                )
            }
            _ => return None,
        };
        Some(Rule {
            cfa_register,
            cfa_offset,
            saved,
            return_address,
            outermost: frame.is_outermost,
            signal: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TEXT, unwind_object};
    use super::super::{FrameTrust, Stop};

    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    const STACK: u64 = 0x7000_0000;

    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A stripped Go 1.20 program: `main.leaf` at 0x100 without a frame, `main.caller` at 0x110 with one of 24
    /// bytes, `runtime.goexit` at 0x120, by the layout in `go.rs`.
    fn program(machine: u16) -> Vec<u8> {
        let mut file = vec![0; 0x1000];
        put(&mut file, 0, b"\x7fELF\x02\x01");
        put(&mut file, 18, &machine.to_le_bytes());
        put(&mut file, 32, &64_u64.to_le_bytes());
        put(&mut file, 40, &0x800_u64.to_le_bytes()); // e_shoff
        put(&mut file, 56, &1_u16.to_le_bytes());
        put(&mut file, 58, &[64, 0, 3, 0, 2, 0]); // e_shentsize, e_shnum, e_shstrndx
        put(&mut file, 64, &[1, 0, 0, 0, 5]); // PT_LOAD, readable and executable
        put(&mut file, 96, &0x1000_u64.to_le_bytes());
        put(&mut file, 104, &0x1000_u64.to_le_bytes());
        let section = |file: &mut [u8], number: usize, name: u8, kind: u8, at: u64, size: u64| {
            let header = 0x800 + 64 * number;
            put(file, header, &[name, 0, 0, 0, kind]);
            for (place, value) in [(16, at), (24, at), (32, size)] {
                put(file, header + place, &value.to_le_bytes());
            }
        };
        section(&mut file, 1, 1, 1, 0x200, 0x300);
        section(&mut file, 2, 12, 3, 0x900, 22);
        put(&mut file, 0x900, b"\0.gopclntab\0.shstrtab\0");
        let step = if machine == X86_64 { 1 } else { 4 };
        put(&mut file, 0x200, &[0xf1, 0xff, 0xff, 0xff, 0, 0, step, 8]);
        // Functions, files, start of the text; then names, units, files, pc tables, functions.
        let words = [3, 0, 0x100_u64, 0x60, 0x90, 0x90, 0xa0, 0xc0];
        for (number, word) in words.into_iter().enumerate() {
            put(&mut file, 0x208 + 8 * number, &word.to_le_bytes());
        }
        put(
            &mut file,
            0x260,
            b"main.leaf\0main.caller\0runtime.goexit\0",
        );
        // From -1 up to 0, and up to 24, for 16 bytes of code each. Offset 0 means no table.
        let length = 16 / step;
        put(&mut file, 0x2a4, &[2, length, 0]);
        put(&mut file, 0x2a8, &[50, length, 0]);
        let records = [(0, 0, 4), (0x10, 10, 8), (0x20, 22, 4), (0x30, 0, 0_u32)];
        for (number, (start, name, table)) in records.into_iter().enumerate() {
            let record = 0x40 + 0x30 * number as u32;
            put(&mut file, 0x2c0 + 8 * number, &u32::to_le_bytes(start));
            put(&mut file, 0x2c4 + 8 * number, &record.to_le_bytes());
            let at = 0x2c0 + record as usize;
            put(&mut file, at + 4, &u32::to_le_bytes(name));
            put(&mut file, at + 16, &table.to_le_bytes());
        }
        file
    }

    fn found(machine: u16, stack: &[u64], set: &[(u16, u64)]) -> (Vec<(u64, FrameTrust)>, Stop) {
        let (frames, stop) = unwind_object(machine, &program(machine), stack, set);
        let frames = frames.iter().map(|frame| (frame.pc.0 - TEXT, frame.trust));
        (frames.collect(), stop)
    }

    #[test]
    fn stripped_go_stack_keeps_the_caller_of_a_function_without_a_frame() {
        use FrameTrust::{Cfi, Registers};
        let expected = vec![(0x104, Registers), (0x114, Cfi), (0x124, Cfi)];
        // Return address, the caller's frame with its saved frame pointer, return address.
        let stack = [TEXT + 0x114, 1, 2, STACK + 0x100, TEXT + 0x124, 0];
        let set = [(16, TEXT + 0x104), (7, STACK), (6, STACK + 24)];
        assert_eq!(found(X86_64, &stack, &set), (expected.clone(), Stop::End));
        // The link register; the caller's frame with its return address at the bottom.
        let stack = [TEXT + 0x124, 1, 2, 0];
        let set = [(32, TEXT + 0x104), (31, STACK), (30, TEXT + 0x114)];
        assert_eq!(found(AARCH64, &stack, &set), (expected, Stop::End));
    }
}
