//! Callers by the exception index of arm (`.ARM.exidx`): C libraries of arm have it instead of call frame information.
//!
//! "Exception Handling ABI for the Arm Architecture" (EHABI), sections 5 to 9: an entry of two words for each function,
//! in the order of addresses; the second word is the instructions themselves, or leads to them in `.ARM.extab`. The
//! instructions restore the stack pointer and registers at the calls of a function, so that a frame that has not
//! called anything yet may have moved neither.

use cdh_elfcore::{Avma, ElfObject, Machine, Memory, Registers, Svma};

use super::{Caller, FrameTrust, Step, Stop, Unwinder};

const ENTRY_SIZE: usize = 8;
/// `EXIDX_CANTUNWIND`.
const CANNOT_UNWIND: u32 = 1;
/// Words of instructions that an entry of `.ARM.extab` may state: a byte counts them.
const MAX_WORDS: usize = 255;
const SP: u16 = 13;
const LR: u16 = 14;
const PC: u16 = 15;

impl Unwinder<'_> {
    /// The step that the exception index describes; `None` where it has none for `lookup`.
    pub(super) fn by_exception_index(
        &self,
        lookup: Avma,
        registers: &Registers,
        memory: &dyn Memory,
    ) -> Option<Step> {
        if registers.machine() != Machine::Arm {
            return None;
        }
        let place = self.places.get(self.module_at(lookup)?)?;
        let object = place.loaded.object.as_ref()?;
        let at = u32::try_from(lookup.0.wrapping_sub(place.bias?)).ok()?;
        let instructions = instructions(object, at)?;
        let mut frame = Frame {
            caller: registers.clone(),
            sp: u32::try_from(registers.sp()?.0).ok()?,
            memory,
            returns: None,
        };
        match frame.run(&mut instructions.into_iter()) {
            Some(()) => frame.finish(),
            None => None,
        }
    }
}

/// A signed distance of 31 bits from the place where it is stored.
fn target(place: u32, word: u32) -> u32 {
    let distance = (word << 1).cast_signed() >> 1;
    place.wrapping_add_signed(distance)
}

fn word_at(object: &ElfObject<'_>, bytes: &[u8], at: usize) -> Option<u32> {
    object.encoding().u32_at(bytes, at)
}

/// The instructions for the function at `at`, in their order.
fn instructions(object: &ElfObject<'_>, at: u32) -> Option<Vec<u8>> {
    let (start, table) = object.exception_index()?;
    let start = u32::try_from(start.0).ok()?;
    let count = table.len() / ENTRY_SIZE;
    let function = |index: usize| {
        let offset = index.checked_mul(ENTRY_SIZE)?;
        let place = start.checked_add(u32::try_from(offset).ok()?)?;
        Some((place, target(place, word_at(object, table, offset)?)))
    };
    // The last entry that begins at or before the address.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        match function(middle) {
            Some((_, function)) if function <= at => low = middle.checked_add(1)?,
            _ => high = middle,
        }
    }
    let index = low.checked_sub(1)?;
    let (place, _) = function(index)?;
    let offset = index.checked_mul(ENTRY_SIZE)?.checked_add(4)?;
    let word = word_at(object, table, offset)?;
    if word == CANNOT_UNWIND {
        return None;
    }
    if word >> 31 == 1 {
        return compact(word, &[], object);
    }
    let extab = object.bytes_at(Svma(target(place.checked_add(4)?, word).into()))?;
    let first = word_at(object, extab, 0)?;
    if first >> 31 == 1 {
        return compact(first, extab.get(4..)?, object);
    }
    // A personality routine of a language; the instructions follow, as its own.
    let word = word_at(object, extab, 4)?;
    let [count, rest @ ..] = word.to_be_bytes();
    Some(with_words(&rest, count, extab.get(8..)?, object))
}

/// Instructions in the compact form: index 0 has three bytes, 1 and 2 have a count and more words.
fn compact(word: u32, more: &[u8], object: &ElfObject<'_>) -> Option<Vec<u8>> {
    let [kind, a, b, c] = word.to_be_bytes();
    match kind & 0xf {
        0 => Some(vec![a, b, c]),
        1 | 2 => Some(with_words(&[b, c], a, more, object)),
        _ => None,
    }
}

fn with_words(first: &[u8], count: u8, more: &[u8], object: &ElfObject<'_>) -> Vec<u8> {
    let words = more.chunks_exact(4).take(MAX_WORDS.min(count.into()));
    let words = words.filter_map(|word| word_at(object, word, 0));
    let mut instructions = first.to_vec();
    instructions.extend(words.flat_map(u32::to_be_bytes));
    instructions
}

/// A frame on the way to its caller.
struct Frame<'a> {
    caller: Registers,
    sp: u32,
    memory: &'a dyn Memory,
    /// Where the return address was read.
    returns: Option<Avma>,
}

impl Frame<'_> {
    fn skip(&mut self, bytes: u32) {
        self.sp = self.sp.wrapping_add(bytes);
    }

    /// Pops registers, the lowest first.
    fn pop(&mut self, numbers: impl Iterator<Item = u16>) {
        let mut new_sp = None;
        for number in numbers {
            let at = Avma(self.sp.into());
            let value = self.memory.read_word(at, Machine::Arm.register_encoding());
            self.caller.set(number, value);
            if number == LR || number == PC {
                self.returns = Some(at);
            }
            if number == SP {
                new_sp = value.and_then(|value| u32::try_from(value).ok());
            }
            self.skip(4);
        }
        self.sp = new_sp.unwrap_or(self.sp);
    }

    /// Doubles of the floating-point unit; only their room counts.
    fn skip_doubles(&mut self, count: u8, more: u32) {
        let bytes = (u32::from(count) & 0xf).saturating_add(1).saturating_mul(8);
        self.skip(bytes.saturating_add(more));
    }

    /// Follows instructions (EHABI, table 4). `None` for one that is refused or unknown.
    fn run(&mut self, instructions: &mut impl Iterator<Item = u8>) -> Option<()> {
        self.caller.set(PC, None);
        while let Some(instruction) = instructions.next() {
            let low = instruction & 7;
            match instruction {
                0x00..=0x3f => self.skip((u32::from(instruction & 0x3f) << 2).saturating_add(4)),
                0x40..=0x7f => {
                    let bytes = (u32::from(instruction & 0x3f) << 2).saturating_add(4);
                    self.sp = self.sp.wrapping_sub(bytes);
                }
                0x80..=0x8f => {
                    let mask = u16::from_be_bytes([instruction & 0xf, instructions.next()?]);
                    if mask == 0 {
                        return None;
                    }
                    let is_popped = |number: &u16| mask & (1 << number.saturating_sub(4)) != 0;
                    self.pop((4..16).filter(is_popped));
                }
                0x90..=0x9f if !matches!(instruction, 0x9d | 0x9f) => {
                    let value = self.caller.get(u16::from(instruction & 0xf))?;
                    self.sp = u32::try_from(value).ok()?;
                }
                0xa0..=0xa7 => self.pop(4..=u16::from(low).saturating_add(4)),
                0xa8..=0xaf => self.pop((4..=u16::from(low).saturating_add(4)).chain([LR])),
                0xb0 => break,
                0xb1 => {
                    let mask = instructions.next().filter(|mask| (1..16).contains(mask))?;
                    self.pop((0..4).filter(|number| mask & (1 << number) != 0));
                }
                0xb2 => {
                    let (mut value, mut shift) = (0_u32, 0_u32);
                    loop {
                        let byte = instructions.next()?;
                        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
                        shift = shift.saturating_add(7);
                        if byte & 0x80 == 0 {
                            break;
                        }
                    }
                    self.skip(value.wrapping_shl(2).wrapping_add(0x204));
                }
                0xb3 => self.skip_doubles(instructions.next()?, 4),
                0xb8..=0xbf => self.skip_doubles(low, 4),
                0xc8 | 0xc9 => self.skip_doubles(instructions.next()?, 0),
                0xd0..=0xd7 => self.skip_doubles(low, 0),
                _ => return None,
            }
        }
        Some(())
    }

    fn finish(mut self) -> Option<Step> {
        let address = self.caller.get(PC).or_else(|| self.caller.get(LR));
        let Some(address) = address else {
            return Some(Err(self.returns.map_or(Stop::NoRule, Stop::NoMemory)));
        };
        self.caller.set(SP, Some(self.sp.into()));
        self.caller
            .set(PC, Some(self.caller.plain_address(address)));
        Some(Ok(Caller {
            registers: self.caller,
            trust: FrameTrust::Cfi,
            over_signal: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stack(Vec<u32>);

    impl Memory for Stack {
        fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
            let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
            let tail = at.0.checked_sub(0x1000).map(|at| at as usize);
            let tail = tail.and_then(|at| bytes.get(at..)).unwrap_or_default();
            let count = tail.len().min(buf.len());
            buf[..count].copy_from_slice(&tail[..count]);
            count
        }
    }

    fn run(instructions: &[u8], stack: &[u32]) -> Option<(u32, Registers)> {
        let mut registers = Registers::new(Machine::Arm);
        registers.set(7, Some(0x1008));
        registers.set(LR, Some(0x9001));
        let mut frame = Frame {
            caller: registers,
            sp: 0x1000,
            memory: &Stack(stack.to_vec()),
            returns: None,
        };
        frame.run(&mut instructions.iter().copied())?;
        Some((frame.sp, frame.caller))
    }

    #[test]
    fn instructions_restore_stack_pointer_and_registers() {
        // vsp += 8; pop r4, r5, lr
        let (sp, caller) = run(&[0x01, 0xa9, 0xb0], &[0, 0, 4, 5, 0x8001]).unwrap();
        assert_eq!(
            (sp, caller.get(4), caller.get(5)),
            (0x1014, Some(4), Some(5))
        );
        assert_eq!(caller.get(LR), Some(0x8001));
        // vsp = r7; pop r4, r8, lr by mask
        let (sp, caller) = run(&[0x97, 0x84, 0x11], &[0, 0, 4, 8, 0x8001]).unwrap();
        assert_eq!(
            (sp, caller.get(4), caller.get(8)),
            (0x1014, Some(4), Some(8))
        );
        assert_eq!(caller.get(LR), Some(0x8001));
        // vsp += 0x204 + (4 << 2); vpop d8, d9
        assert_eq!(run(&[0xb2, 4, 0xd1], &[]).unwrap().0, 0x1000 + 0x214 + 16);
        assert!(run(&[0x80, 0], &[]).is_none());
        assert!(run(&[0xb2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[]).is_none());
    }
}
