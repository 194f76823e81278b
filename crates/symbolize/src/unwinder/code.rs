//! The bytes around an address, and whether they are code that has just called something.

use cdh_elfcore::{Avma, Machine, Memory, Svma};

use super::Unwinder;

/// `PF_X` and `PF_W`.
const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;
/// How far a function's start may lie before an address in it, to call it by a direct call.
pub(super) const FUNCTION_REACH: u64 = 0x4000;

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// In an executable segment of a module whose file is there.
    Code,
    /// In another part of such a module.
    Data,
    /// In a module without a file.
    Unseen,
    /// In no module: stack, heap, generated code, or nothing at all.
    Outside,
}

impl Unwinder<'_> {
    pub(super) fn ground(&self, at: Avma) -> Ground {
        let Some(place) = self.module_at(at).and_then(|index| self.places.get(index)) else {
            return Ground::Outside;
        };
        let (Some(object), Some(bias)) = (&place.loaded.object, place.bias) else {
            return Ground::Unseen;
        };
        let at = Svma(at.0.wrapping_sub(bias));
        let inside = object.load_segments().iter().find(|load| {
            at.checked_sub(load.start)
                .is_some_and(|inside| inside < load.memory_size)
        });
        match inside {
            Some(load) if load.flags & EXECUTABLE != 0 => Ground::Code,
            _ => Ground::Data,
        }
    }

    /// Bytes of code: from the file where it was mapped read-only, as kernels do not dump those pages.
    pub(super) fn code<const N: usize>(&self, at: Avma, memory: &dyn Memory) -> Option<[u8; N]> {
        self.file_bytes(at).or_else(|| {
            let mut bytes = [0; N];
            (memory.read(at, &mut bytes) == N).then_some(bytes)
        })
    }

    fn file_bytes<const N: usize>(&self, at: Avma) -> Option<[u8; N]> {
        let place = self.places.get(self.module_at(at)?)?;
        let object = place.loaded.object.as_ref()?;
        let at = Svma(at.0.wrapping_sub(place.bias?));
        let holds = |load: &&cdh_elfcore::LoadSegment| {
            at.checked_sub(load.start)
                .is_some_and(|inside| inside < load.file_size)
        };
        let load = object.load_segments().iter().find(holds)?;
        if load.flags & WRITABLE != 0 {
            return None;
        }
        object.bytes_at(at)?.first_chunk().copied()
    }

    /// Where the direct call before `address` leads.
    fn call_target(&self, machine: Machine, address: u64, memory: &dyn Memory) -> Option<Avma> {
        match machine {
            Machine::X86_64 | Machine::I386 | Machine::X32 => {
                let bytes = self.code::<8>(Avma(address.checked_sub(8)?), memory)?;
                let target = address.wrapping_add_signed(direct_call(bytes)?);
                Some(Avma(target & machine.address_mask()))
            }
            Machine::Aarch64 => {
                let at = address.checked_sub(4)?;
                let word = u32::from_le_bytes(self.code::<4>(Avma(at), memory)?);
                Some(Avma(at.wrapping_add_signed(aarch64_direct_call(word)?)))
            }
            _ => None,
        }
    }

    /// The place of the function's address that the procedure linkage table's entry at `at` jumps to (x86_64).
    fn slot_of_stub(&self, at: Avma, memory: &dyn Memory) -> Option<Avma> {
        let code = self.code::<11>(at, memory)?;
        let mut rest = code.as_slice();
        // endbr64, bnd
        for prefix in [&[0xf3, 0x0f, 0x1e, 0xfa][..], &[0xf2]] {
            rest = rest.strip_prefix(prefix).unwrap_or(rest);
        }
        // jmp *offset(%rip)
        let offset = rest.strip_prefix(&[0xff, 0x25])?.first_chunk()?;
        let skipped = code.len().checked_sub(rest.len())?.checked_add(6)?;
        let next = at.checked_add(u64::try_from(skipped).ok()?)?;
        let offset = i32::from_le_bytes(*offset).into();
        Some(Avma(next.0.wrapping_add_signed(offset)))
    }

    /// The address in memory by which the call before `return_address` finds its function (x86_64).
    fn slot_of_call(&self, return_address: u64, memory: &dyn Memory) -> Option<Avma> {
        let code = self.code::<8>(Avma(return_address.checked_sub(8)?), memory)?;
        match code {
            // call *offset(%rip)
            [_, _, 0xff, 0x15, offset @ ..] => {
                let offset = i32::from_le_bytes(offset).into();
                Some(Avma(return_address.wrapping_add_signed(offset)))
            }
            _ => {
                let target = return_address.wrapping_add_signed(direct_call(code)?);
                self.slot_of_stub(Avma(target), memory)
            }
        }
    }

    /// Whether the call before `address` leads into the module `callee`, through an address that the dynamic
    /// loader has put into memory. x86_64 only.
    pub(super) fn calls_into(&self, address: u64, callee: usize, memory: &dyn Memory) -> bool {
        let slot = self.slot_of_call(address, memory);
        let target = slot.and_then(|slot| memory.read_u64(slot));
        target.is_some_and(|target| self.module_at(Avma(target)) == Some(callee))
    }

    /// The function that the call before `return_address` leads to, where that is known: of a direct call, or
    /// one through the procedure linkage table.
    pub(super) fn called_function(
        &self,
        machine: Machine,
        return_address: u64,
        memory: &dyn Memory,
    ) -> Option<Avma> {
        if machine == Machine::X86_64
            && let Some(slot) = self.slot_of_call(return_address, memory)
        {
            return memory.read_u64(slot).map(Avma);
        }
        let target = self.call_target(machine, return_address, memory)?;
        (!self.is_stub(machine, target, memory)).then_some(target)
    }

    /// Whether there is an entry of a procedure linkage table at `at`, which jumps to wherever the dynamic
    /// loader says.
    fn is_stub(&self, machine: Machine, at: Avma, memory: &dyn Memory) -> bool {
        match machine {
            Machine::X86_64 => self.slot_of_stub(at, memory).is_some(),
            // adrp x16, page
            Machine::Aarch64 => self
                .code::<4>(at, memory)
                .is_some_and(|code| u32::from_le_bytes(code) & 0x9f00_001f == 0x9000_0010),
            _ => false,
        }
    }

    /// Whether `address` follows a call instruction. With `target`: a direct call to shortly before it.
    pub(super) fn follows_call(
        &self,
        machine: Machine,
        address: u64,
        target: Option<u64>,
        memory: &dyn Memory,
    ) -> bool {
        let reaches = |to: u64| match target {
            Some(target) => target
                .checked_sub(to)
                .is_some_and(|inside| inside < FUNCTION_REACH),
            None => matches!(
                self.ground(Avma(to)),
                Ground::Code | Ground::Unseen | Ground::Outside
            ),
        };
        match machine {
            Machine::X86_64 | Machine::I386 | Machine::X32 => {
                let Some(at) = address.checked_sub(8) else {
                    return false;
                };
                let Some(bytes) = self.code::<8>(Avma(at), memory) else {
                    return false;
                };
                match direct_call(bytes) {
                    Some(distance)
                        if reaches(
                            address.wrapping_add_signed(distance) & machine.address_mask(),
                        ) =>
                    {
                        true
                    }
                    _ => target.is_none() && is_indirect_call(bytes),
                }
            }
            Machine::Aarch64 => {
                let Some(at) = address.checked_sub(4) else {
                    return false;
                };
                let Some(bytes) = self.code::<4>(Avma(at), memory) else {
                    return false;
                };
                let word = u32::from_le_bytes(bytes);
                match aarch64_direct_call(word) {
                    Some(distance) => reaches(at.wrapping_add_signed(distance)),
                    // blr, blraa and their kin.
                    None => target.is_none() && (word & 0xfefff000) == 0xd63f_0000,
                }
            }
            _ => {
                let at = address.checked_sub(6).filter(|_| target.is_none());
                let bytes = at.and_then(|at| self.code::<6>(Avma(at), memory));
                bytes.is_some_and(|bytes| ends_with_call(machine, bytes))
            }
        }
    }
}

/// Whether the last instruction is a call, on machines whose calls leave the return address in a register.
fn ends_with_call(machine: Machine, [a, b, c, d, e, f]: [u8; 6]) -> bool {
    let word = u32::from_le_bytes([c, d, e, f]);
    let (first, last) = (u16::from_le_bytes([c, d]), u16::from_le_bytes([e, f]));
    match machine {
        // bl; bctrl, blrl. A load of r2 behind a call through the linkage table comes after the return address.
        Machine::Ppc64Le => {
            word & 0xfc00_0003 == 0x4800_0001 || matches!(word, 0x4e80_0421 | 0x4e80_0021)
        }
        // jal ra; jalr ra; c.jalr.
        Machine::Riscv64 => matches!(word & 0xfff, 0x0ef | 0x0e7) || last & 0xf07f == 0x9002,
        // brasl; bras; basr.
        Machine::S390x => (a == 0xc0 && b & 0xf == 5) || (c == 0xa7 && d & 0xf == 5) || e == 0x0d,
        // bl, blx and blx register of A32; bl, blx and blx register of Thumb.
        Machine::Arm => {
            word & 0x0f00_0000 == 0x0b00_0000
                || word & 0xfe00_0000 == 0xfa00_0000
                || word & 0x0fff_fff0 == 0x012f_ff30
                || (first & 0xf800 == 0xf000 && last & 0xc000 == 0xc000)
                || last & 0xff87 == 0x4780
        }
        _ => false,
    }
}

/// `call rel32` (e8) in the last five bytes.
fn direct_call([.., opcode, a, b, c, d]: [u8; 8]) -> Option<i64> {
    (opcode == 0xe8).then(|| i64::from(i32::from_le_bytes([a, b, c, d])))
}

/// `bl`: 26 bits of words.
fn aarch64_direct_call(word: u32) -> Option<i64> {
    ((word & 0xfc00_0000) == 0x9400_0000).then(|| i64::from((word << 6).cast_signed() >> 4))
}

/// `ff /2`: call of a register or of memory, in every length that ends at the end of the bytes.
fn is_indirect_call(bytes: [u8; 8]) -> bool {
    let ends_here = |start: usize| {
        let mut code = bytes.iter().copied().skip(start);
        let (Some(0xff), Some(modrm)) = (code.next(), code.next()) else {
            return false;
        };
        let (mode, register, operand) = (modrm >> 6, (modrm >> 3) & 7, modrm & 7);
        let sib = code.next().filter(|_| mode != 3 && operand == 4);
        let displacement = match (mode, sib) {
            // Base 5 without a mode means no base at all.
            (0, Some(sib)) if sib & 7 == 5 => 4,
            (0, None) if operand == 5 => 4,
            (0 | 3, _) => 0,
            (1, _) => 1,
            _ => 4,
        };
        let length = 2_usize
            .saturating_add(sib.is_some().into())
            .saturating_add(displacement);
        register == 2 && start.checked_add(length) == Some(bytes.len())
    };
    (0..bytes.len()).any(ends_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_every_length_are_seen() {
        let padded = |code: &[u8]| {
            let mut bytes = [0x90; 8];
            bytes[8 - code.len()..].copy_from_slice(code);
            bytes
        };
        for code in [
            &[0xff, 0xd0][..],               // call *%rax
            &[0x41, 0xff, 0xd4],             // call *%r12
            &[0xff, 0x10],                   // call *(%rax)
            &[0xff, 0x50, 0x18],             // call *0x18(%rax)
            &[0xff, 0x14, 0xc5, 0, 0, 0, 0], // call *0(,%rax,8)
            &[0xff, 0x15, 1, 2, 3, 4],       // call *0x4030201(%rip)
            &[0xff, 0x54, 0x24, 0x08],       // call *8(%rsp)
            &[0xff, 0x90, 0, 1, 0, 0],       // call *0x100(%rax)
        ] {
            assert!(is_indirect_call(padded(code)), "{code:x?}");
        }
        assert!(!is_indirect_call(padded(&[0xff, 0xe0]))); // jmp *%rax
        assert!(!is_indirect_call(padded(&[0xff, 0xd0, 0x90])));
        assert_eq!(
            direct_call(padded(&[0xe8, 0xfb, 0xff, 0xff, 0xff])),
            Some(-5)
        );
    }

    #[test]
    fn calls_of_other_machines_are_seen() {
        let ends = |machine, code: &[u8]| {
            let mut bytes = [0; 6];
            bytes[6 - code.len()..].copy_from_slice(code);
            ends_with_call(machine, bytes)
        };
        for (machine, code) in [
            (Machine::Ppc64Le, &[0x01, 0, 0, 0x48][..]),   // bl
            (Machine::Ppc64Le, &[0x21, 0x04, 0x80, 0x4e]), // bctrl
            (Machine::Riscv64, &[0xef, 0x00, 0x40, 0x00]), // jal ra
            (Machine::Riscv64, &[0xe7, 0x80, 0x07, 0x00]), // jalr ra
            (Machine::Riscv64, &[0x82, 0x97]),             // c.jalr a5
            (Machine::S390x, &[0xc0, 0xe5, 0, 0, 0, 4]),   // brasl
            (Machine::S390x, &[0x0d, 0xe1]),               // basr
            (Machine::Arm, &[0x01, 0, 0, 0xeb]),           // bl
            (Machine::Arm, &[0x98, 0x47]),                 // blx r3
            (Machine::Arm, &[0xff, 0xf7, 0xfe, 0xff]),     // bl of Thumb
        ] {
            assert!(ends(machine, code), "{machine} {code:x?}");
        }
        assert!(!ends(Machine::Ppc64Le, &[0, 0, 0, 0x48])); // b
        assert!(!ends(Machine::S390x, &[0x07, 0xfe])); // br
    }

    #[test]
    fn aarch64_calls_are_seen() {
        assert_eq!(aarch64_direct_call(0x9400_0001), Some(4));
        assert_eq!(aarch64_direct_call(0x97ff_ffff), Some(-4));
        assert_eq!(aarch64_direct_call(0xd63f_0000), None);
    }
}
