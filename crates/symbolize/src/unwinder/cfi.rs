//! Call frame information: finds the rule for an address and applies it to the registers.

use std::collections::HashMap;
use std::sync::OnceLock;

use cdh_elfcore::{Avma, ByteOrder, Encoding as WordEncoding, Machine, Memory, Registers};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, Encoding, EndianSlice,
    EvaluationResult, Expression, FrameDescriptionEntry, Location, ParsedEhFrameHdr, Register,
    RegisterRule, RunTimeEndian, UnwindContext, UnwindOffset, UnwindSection, UnwindTableRow, Value,
    Vendor,
};

use super::go_runtime::GoFunction;
use super::{Caller, FrameTrust, Step, Stop, Unwinder};
use crate::LoadedModule;
use crate::section;

type Reader<'m> = EndianSlice<'m, RunTimeEndian>;
type Entry<'m> = FrameDescriptionEntry<Reader<'m>>;

/// Longest believable entry: programs of real functions have some kilobytes, hostile ones what they like.
const ENTRY_LIMIT: usize = 1 << 20;
/// Operations of one expression; real ones have a dozen.
const EXPRESSION_LIMIT: u32 = 1000;
/// Rules kept for reuse; each is about 200 bytes.
const CACHE_LIMIT: usize = 1 << 16;
/// Registers that a row of the common kind restores; more are handled, only not remembered.
const REMEMBERED_REGISTERS: usize = Registers::COUNT;
/// `.debug_frame` of the largest programs has some hundred MiB.
const DEBUG_FRAME_LIMIT: u64 = 1 << 30;

/// Rules by address, and the scratch space to compute them.
#[derive(Default)]
pub(super) struct Cache {
    context: UnwindContext<usize>,
    rules: HashMap<u64, Option<Rule>>,
    pub(super) trampolines: HashMap<u64, bool>,
    pub(super) go_functions: HashMap<u64, Option<GoFunction>>,
    /// Steps by which scans of this thread have compared possible callers.
    pub(super) compared: usize,
}

/// A row that needs no expression: what almost every frame uses.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) cfa_register: u16,
    pub(super) cfa_offset: i64,
    /// Register at CFA + offset.
    pub(super) saved: Vec<(u16, i64)>,
    pub(super) return_address: u16,
    pub(super) outermost: bool,
    pub(super) signal: bool,
}

/// Unwind tables of one module, found through program headers: sections may be stripped.
pub(super) struct ModuleCfi<'m> {
    bases: BaseAddresses,
    header: Option<ParsedEhFrameHdr<Reader<'m>>>,
    eh_frame: Option<EhFrame<Reader<'m>>>,
    /// Only built where there is no search table.
    eh_index: OnceLock<Index>,
    debug_frame: OnceLock<Option<(section::Contents<'m>, Index)>>,
    style: Style,
}

/// How the numbers and registers of a module's tables are to be read.
#[derive(Clone, Copy)]
struct Style {
    endian: RunTimeEndian,
    address_size: u8,
    vendor: Vendor,
}

impl Style {
    fn of(machine: Machine) -> Self {
        let WordEncoding { order, .. } = machine.encoding();
        Self {
            endian: match order {
                ByteOrder::Little => RunTimeEndian::Little,
                ByteOrder::Big => RunTimeEndian::Big,
            },
            address_size: match machine.encoding().word_size() {
                4 => 4,
                _ => 8,
            },
            vendor: match machine {
                Machine::Aarch64 => Vendor::AArch64,
                _ => Vendor::Default,
            },
        }
    }
}

/// Start, end and section offset of every entry, by address.
struct Index(Vec<(u64, u64, usize)>);

impl Index {
    fn build<'m, S: UnwindSection<Reader<'m>>>(section: &S, bases: &BaseAddresses) -> Self {
        let mut found = Vec::new();
        let mut entries = section.entries(bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else {
                continue;
            };
            if let Ok(entry) = partial.parse(S::cie_from_offset) {
                found.push((entry.initial_address(), entry.end_address(), entry.offset()));
            }
        }
        found.sort_unstable();
        Self(found)
    }

    fn find(&self, at: u64) -> Option<usize> {
        let next = self.0.partition_point(|entry| entry.0 <= at);
        let (_, end, offset) = self.0.get(next.checked_sub(1)?)?;
        (at < *end).then_some(*offset)
    }
}

impl<'m> ModuleCfi<'m> {
    pub(super) fn new(loaded: &LoadedModule<'m>) -> Self {
        let mut bases = BaseAddresses::default();
        let (mut header, mut eh_frame) = (None, None);
        let machine = loaded.object.as_ref().map(|object| object.machine());
        let style = Style::of(machine.unwrap_or(Machine::X86_64));
        let (endian, address_size) = (style.endian, style.address_size);
        if let Some(object) = &loaded.object {
            if let Some(text) = object.section(".text") {
                bases = bases.set_text(text.address.0);
            }
            if let Some((at, bytes)) = object.eh_frame_header() {
                bases = bases.set_eh_frame_hdr(at.0);
                // The third byte is the encoding of the count: linkers write four bytes. A longer count
                // overflows in gimli's search.
                let counted = bytes
                    .get(2)
                    .is_some_and(|encoding| matches!(encoding & 0xf, 2 | 3));
                let parsed = EhFrameHdr::new(bytes, endian)
                    .parse(&bases, address_size)
                    .ok();
                let parsed = parsed.filter(|_| counted);
                let table = parsed.and_then(|parsed| {
                    let at = parsed.eh_frame_ptr().direct().ok()?;
                    Some((at, object.bytes_at(cdh_elfcore::Svma(at))?, parsed))
                });
                if let Some((at, bytes, parsed)) = table {
                    bases = bases.set_eh_frame(at);
                    eh_frame = Some(EhFrame::new(bytes, endian));
                    header = Some(parsed);
                }
            }
            if eh_frame.is_none()
                && let Some(section) = object.section(".eh_frame")
            {
                bases = bases.set_eh_frame(section.address.0);
                eh_frame = Some(EhFrame::new(section.data, endian));
            }
        }
        if let Some(eh_frame) = &mut eh_frame {
            eh_frame.set_address_size(address_size);
            eh_frame.set_vendor(style.vendor);
        }
        let (eh_index, debug_frame) = (OnceLock::new(), OnceLock::new());
        Self {
            bases,
            header,
            eh_frame,
            eh_index,
            debug_frame,
            style,
        }
    }

    fn eh_entry(&self, eh_frame: &EhFrame<Reader<'m>>, at: u64) -> Option<Entry<'m>> {
        let get = EhFrame::cie_from_offset;
        if let Some(table) = self.header.as_ref().and_then(ParsedEhFrameHdr::table) {
            // gimli's own `fde_for_address` subtracts unchecked: a hostile table points below its section.
            let entry = table.lookup(at, &self.bases).ok()?.direct().ok()?;
            let offset = usize::try_from(entry.checked_sub(self.bases.eh_frame.section?)?).ok()?;
            let entry = eh_frame
                .fde_from_offset(&self.bases, offset.into(), get)
                .ok()?;
            return entry.contains(at).then_some(entry);
        }
        let index = self
            .eh_index
            .get_or_init(|| Index::build(eh_frame, &self.bases));
        eh_frame
            .fde_from_offset(&self.bases, index.find(at)?.into(), get)
            .ok()
    }

    /// `.debug_frame` of the file or of its debug file: used where `.eh_frame` says nothing.
    fn debug_frame(&self, loaded: &LoadedModule<'m>) -> Option<(DebugFrame<Reader<'_>>, &Index)> {
        let (bytes, index) = self
            .debug_frame
            .get_or_init(|| {
                let objects = [loaded.object.as_ref(), loaded.debug.as_ref()];
                let bytes = objects.into_iter().flatten().find_map(|object| {
                    section::contents(object, ".debug_frame", DEBUG_FRAME_LIMIT)
                })?;
                let index =
                    Index::build(&open_debug_frame(bytes.as_ref(), self.style), &self.bases);
                Some((bytes, index))
            })
            .as_ref()?;
        Some((open_debug_frame(bytes.as_ref(), self.style), index))
    }
}

fn open_debug_frame(bytes: &[u8], style: Style) -> DebugFrame<Reader<'_>> {
    let mut frame = DebugFrame::new(bytes, style.endian);
    frame.set_address_size(style.address_size);
    frame.set_vendor(style.vendor);
    frame
}

impl<'m> Unwinder<'m> {
    /// The step that call frame information describes; `None` where there is none for `lookup`.
    pub(super) fn by_cfi(
        &self,
        lookup: Avma,
        registers: &Registers,
        memory: &dyn Memory,
        cache: &mut Cache,
    ) -> Option<Step> {
        if let Some(Some(rule)) = cache.rules.get(&lookup.0) {
            return Some(apply(rule, registers, memory));
        }
        if matches!(cache.rules.get(&lookup.0), Some(None)) {
            return None;
        }
        if let Some(step) = self.by_entry(lookup, registers, memory, cache) {
            return Some(step);
        }
        if let Some(step) = self.by_exception_index(lookup, registers, memory) {
            return Some(step);
        }
        let rule = self.rule_of_go(lookup, registers.machine());
        let step = rule.as_ref().map(|rule| apply(rule, registers, memory));
        cache.remember(lookup.0, rule);
        step
    }

    /// Where the function at `at` starts, as far as call frame information says.
    pub(super) fn function_start(&self, at: Avma) -> Option<Avma> {
        let place = self.places.get(self.module_at(at)?)?;
        place.loaded.object.as_ref()?;
        let bias = place.bias?;
        let cfi = place.cfi.get_or_init(|| ModuleCfi::new(place.loaded));
        let entry = cfi.eh_entry(cfi.eh_frame.as_ref()?, at.0.wrapping_sub(bias))?;
        Some(Avma(entry.initial_address().wrapping_add(bias)))
    }

    fn by_entry(
        &self,
        lookup: Avma,
        registers: &Registers,
        memory: &dyn Memory,
        cache: &mut Cache,
    ) -> Option<Step> {
        let place = self.places.get(self.module_at(lookup)?)?;
        place.loaded.object.as_ref()?;
        let at = lookup.0.wrapping_sub(place.bias?);
        let cfi = place.cfi.get_or_init(|| ModuleCfi::new(place.loaded));
        let thread = Thread {
            registers,
            memory,
            lookup: lookup.0,
        };
        if let Some(eh_frame) = &cfi.eh_frame
            && let Some(entry) = cfi.eh_entry(eh_frame, at)
            && let Some(step) = thread.step(eh_frame, &cfi.bases, &entry, at, cache)
        {
            return Some(step);
        }
        let (debug_frame, index) = cfi.debug_frame(place.loaded)?;
        let offset = index.find(at)?.into();
        let get = DebugFrame::cie_from_offset;
        let entry = debug_frame.fde_from_offset(&cfi.bases, offset, get).ok()?;
        thread.step(&debug_frame, &cfi.bases, &entry, at, cache)
    }
}

impl Cache {
    /// Whether call frame information was searched for this address and there is none.
    pub(super) fn has_no_rule(&self, lookup: Avma) -> bool {
        matches!(self.rules.get(&lookup.0), Some(None))
    }

    fn remember(&mut self, lookup: u64, rule: Option<Rule>) {
        if self.rules.len() >= CACHE_LIMIT {
            self.rules.clear();
        }
        self.rules.insert(lookup, rule);
    }
}

/// One frame's registers, with what is needed to compute the caller's.
struct Thread<'a> {
    registers: &'a Registers,
    memory: &'a dyn Memory,
    lookup: u64,
}

impl Thread<'_> {
    fn step<'m, S>(
        &self,
        section: &S,
        bases: &BaseAddresses,
        entry: &Entry<'m>,
        at: u64,
        cache: &mut Cache,
    ) -> Option<Step>
    where
        S: UnwindSection<Reader<'m>>,
        S::Offset: UnwindOffset<usize>,
    {
        if entry.entry_len() > ENTRY_LIMIT || entry.cie().entry_len() > ENTRY_LIMIT {
            return None;
        }
        let signal = entry.is_signal_trampoline();
        let return_address = entry.cie().return_address_register().0;
        let encoding = entry.cie().encoding();
        let row = entry
            .unwind_info_for_address(section, bases, &mut cache.context, at)
            .ok()?;
        if let Some(rule) = plain_rule(row, signal, return_address) {
            let step = apply(&rule, self.registers, self.memory);
            cache.remember(self.lookup, Some(rule));
            return Some(step);
        }
        let machine = self.registers.machine();
        let read = |at: u64| {
            let at = Avma(at & machine.address_mask());
            self.memory.read_word(at, machine.register_encoding())
        };
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers.get(register.0)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => {
                self.evaluate(expression.get(section).ok()?, encoding, None)?
            }
        };
        let cfa = cfa & machine.address_mask();
        let mut caller = with_frame_address(self.registers, cfa);
        for (register, rule) in row.registers() {
            let value = match rule {
                RegisterRule::SameValue => self.registers.get(register.0),
                RegisterRule::Offset(offset) => read(cfa.wrapping_add_signed(*offset)),
                RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
                RegisterRule::Register(other) => self.registers.get(other.0),
                RegisterRule::Expression(expression) => {
                    let expression = expression.get(section).ok();
                    expression
                        .and_then(|expression| self.evaluate(expression, encoding, Some(cfa)))
                        .and_then(read)
                }
                RegisterRule::ValExpression(expression) => {
                    let expression = expression.get(section).ok();
                    expression.and_then(|expression| self.evaluate(expression, encoding, Some(cfa)))
                }
                RegisterRule::Constant(value) => Some(*value),
                RegisterRule::Undefined if register.0 == return_address => {
                    return Some(Err(Stop::End));
                }
                _ => None,
            };
            caller.set(register.0, value);
        }
        let from = match row.register(Register(return_address)) {
            Some(RegisterRule::Offset(offset)) => Some(Avma(cfa.wrapping_add_signed(offset))),
            Some(_) => Some(Avma(cfa)),
            None => None,
        };
        Some(finish(caller, return_address, signal, from))
    }

    fn evaluate<'m>(
        &self,
        expression: Expression<Reader<'m>>,
        encoding: Encoding,
        cfa: Option<u64>,
    ) -> Option<u64> {
        let mut evaluation = expression.evaluation(encoding);
        evaluation.set_max_iterations(EXPRESSION_LIMIT);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.registers.get(register.0)?;
                    evaluation
                        .resume_with_register(Value::Generic(value))
                        .ok()?
                }
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let mut word = [0; 8];
                    let wanted = word.get_mut(..usize::from(size))?;
                    if self.memory.read(Avma(address), wanted) != usize::from(size) {
                        return None;
                    }
                    let value = match self.registers.machine().encoding().order {
                        ByteOrder::Little => u64::from_le_bytes(word),
                        ByteOrder::Big => {
                            wanted.reverse();
                            u64::from_le_bytes(word)
                        }
                    };
                    evaluation.resume_with_memory(Value::Generic(value)).ok()?
                }
                EvaluationResult::RequiresCallFrameCfa => {
                    evaluation.resume_with_call_frame_cfa(cfa?).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.as_result().first()?.location {
            Location::Address { address } => Some(address),
            _ => None,
        }
    }
}

fn plain_rule(row: &UnwindTableRow<usize>, signal: bool, return_address: u16) -> Option<Rule> {
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
        return None;
    };
    let mut rule = Rule {
        cfa_register: register.0,
        cfa_offset: *offset,
        saved: Vec::new(),
        return_address,
        outermost: false,
        signal,
    };
    for (register, saved) in row.registers() {
        match saved {
            RegisterRule::Offset(offset) => {
                rule.saved.push((register.0, *offset));
            }
            RegisterRule::Undefined if register.0 == return_address => rule.outermost = true,
            RegisterRule::SameValue => {}
            _ => return None,
        }
    }
    (rule.saved.len() <= REMEMBERED_REGISTERS).then_some(rule)
}

fn apply(rule: &Rule, registers: &Registers, memory: &dyn Memory) -> Step {
    if rule.outermost {
        return Err(Stop::End);
    }
    let Some(base) = registers.get(rule.cfa_register) else {
        return Err(Stop::NoRule);
    };
    let machine = registers.machine();
    let mask = machine.address_mask();
    let cfa = base.wrapping_add_signed(rule.cfa_offset) & mask;
    let mut caller = with_frame_address(registers, cfa);
    let mut from = None;
    for &(register, offset) in &rule.saved {
        let at = Avma(cfa.wrapping_add_signed(offset) & mask);
        if register == rule.return_address {
            from = Some(at);
        }
        caller.set(register, memory.read_word(at, machine.register_encoding()));
    }
    finish(caller, rule.return_address, rule.signal, from)
}

/// The registers of a frame, as its caller has those that no rule names.
fn with_frame_address(registers: &Registers, cfa: u64) -> Registers {
    let mut caller = registers.clone();
    // Elsewhere a rule restores the stack pointer, or it did not move.
    if registers.machine().cfa_is_stack_pointer() {
        caller.set(caller.sp_number(), Some(cfa));
    }
    caller
}

/// Makes the return address the caller's pc. `from` is where it was read, `None` where no rule names it.
fn finish(mut caller: Registers, return_address: u16, signal: bool, from: Option<Avma>) -> Step {
    // Without a rule it is still in its register, if it has one of its own (x30): a leaf.
    if from.is_none() && return_address == caller.pc_number() {
        return Err(Stop::NoRule);
    }
    let Some(pc) = caller.get(return_address) else {
        return Err(from.map_or(Stop::NoRule, Stop::NoMemory));
    };
    let pc = caller.plain_address(pc);
    caller.set(caller.pc_number(), Some(pc));
    let trust = if signal {
        FrameTrust::Signal
    } else {
        FrameTrust::Cfi
    };
    Ok(Caller {
        registers: caller,
        trust,
        over_signal: signal,
    })
}
