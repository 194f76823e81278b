//! Evaluates where a variable is, with the registers of its frame.
//!
//! Nothing is assumed: a register that is not known, a caller that is not sure and an expression that is not
//! understood all mean that the variable was optimized out.

use std::rc::Rc;

use cdh_elfcore::{Avma, Memory};
use cdh_symbolize::{FrameRegisters, Reader};
use gimli::{
    AttributeValue, EndianSlice, EvaluationResult, Expression, LittleEndian, Location, UnitOffset,
    Value, ValueType,
};

use crate::Missing;
use crate::dwarf::{Die, DieId, Module, Unit};
use crate::scope::{self, FunctionIndex};

/// Steps of one expression.
const STEPS: u32 = 1 << 14;
/// Requests of one expression to its surroundings.
const REQUESTS: usize = 1 << 12;
/// Tail calls between two frames, and functions that are searched for one.
const TAIL_CALLS: usize = 4;
const FUNCTIONS: usize = 1 << 12;
/// How deep expressions ask for other expressions: entry values of callers.
const DEPTH: usize = 16;
/// Largest object that is put together from pieces.
const OBJECT: usize = 1 << 16;

/// Where an object is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In memory.
    Memory(u64),
    /// In registers, or computed.
    Bytes(Rc<Pieces>),
    /// It is a pointer to a variable that has no address.
    Synthetic,
    /// Nowhere.
    Nowhere(Missing),
}

/// What is known of an object that is not in one piece in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) bytes: Vec<u8>,
    /// For each byte, why it is not known.
    pub(crate) missing: Vec<Option<Missing>>,
    /// The register that all of it is in.
    pub(crate) register: Option<u16>,
}

/// The frame that expressions are evaluated in.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a, 'data> {
    pub(crate) process: &'a Process<'a, 'data>,
    /// All frames of the thread.
    pub(crate) frames: &'a [FrameRegisters],
    pub(crate) number: usize,
    pub(crate) function: &'a Die<'data>,
    /// Of a function that left the stack by a tail call: the calls that led to it, from that of the frame
    /// `number + 1` on. It has no registers; only what its callers passed is known.
    pub(crate) tail: &'a [Call<'data>],
}

/// A function, and one of its call sites.
pub(crate) type Call<'data> = (Die<'data>, Die<'data>);

/// What expressions need of the process.
pub(crate) struct Process<'a, 'data> {
    pub(crate) memory: &'a dyn Memory,
    /// Opens the debug information of a module.
    pub(crate) module: &'a dyn Fn(usize) -> Option<Rc<Module<'data>>>,
    pub(crate) functions: &'a FunctionIndex<'data>,
}

type Pieced<'data> = Vec<gimli::Piece<Reader<'data>>>;

impl Pieces {
    fn push(&mut self, byte: Result<u8, Missing>) {
        self.bytes.push(byte.unwrap_or(0));
        self.missing.push(byte.err());
    }

    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let missing = vec![None; bytes.len()];
        Self {
            bytes,
            missing,
            register: None,
        }
    }

    /// Bytes `from..from + size`, or why they are not known.
    pub(crate) fn get(&self, from: u64, size: usize) -> Result<Vec<u8>, Missing> {
        let from = usize::try_from(from).map_err(|_| Missing::OptimizedOut)?;
        let end = from.checked_add(size).ok_or(Missing::OptimizedOut)?;
        let missing = self.missing.get(from..end).ok_or(Missing::OptimizedOut)?;
        if let Some(why) = missing.iter().flatten().next() {
            return Err(*why);
        }
        let bytes = self.bytes.get(from..end);
        bytes.map(<[u8]>::to_vec).ok_or(Missing::OptimizedOut)
    }
}

impl<'data> Frame<'_, 'data> {
    fn here(&self) -> Option<&FrameRegisters> {
        self.frames
            .get(self.number)
            .filter(|_| self.tail.is_empty())
    }

    /// The address that location lists are asked for, as the file states it.
    fn lookup(&self) -> Option<u64> {
        Some(self.here()?.frame.lookup_svma()?.0)
    }

    /// Where the variable described by `die` is. `size` is that of its type.
    pub(crate) fn place_of(&self, die: &Die<'data>, size: u64) -> Place {
        let chain = die.chain();
        for die in &chain {
            if let Some(location) = die.attr(gimli::DW_AT_location) {
                return self.place(&die.unit, location, size, None);
            }
            if let Some(constant) = die.attr(gimli::DW_AT_const_value) {
                return constant_place(die, constant, size);
            }
        }
        Place::Nowhere(Missing::OptimizedOut)
    }

    /// What an argument was when the function was entered, if the caller's call site says it: of one that is optimized
    /// out here.
    pub(crate) fn place_at_entry(&self, die: &Die<'data>, size: u64) -> Option<Place> {
        let entry = scope::entry_of(self.function)?;
        let chain = die.chain();
        let (die, location) = chain
            .iter()
            .find_map(|die| Some((die, die.attr(gimli::DW_AT_location)?)))?;
        let mut entries = die.unit.reference().attr_locations(location).ok()??;
        let mut first = None;
        while let Ok(Some(found)) = entries.next() {
            if found.range.begin <= entry && entry < found.range.end {
                first = Some(found.data);
                break;
            }
        }
        let register = first?;
        let mut operations = register.operations(die.unit.unit.encoding());
        let is_register = matches!(
            operations.next(),
            Ok(Some(gimli::Operation::Register { .. }))
        );
        if !is_register || !matches!(operations.next(), Ok(None)) {
            return None;
        }
        let value = self.entry_value(&die.unit, register, 0).ok()?;
        let size = usize::try_from(size).ok()?.min(8);
        let mut bytes = value_bytes(value, size);
        bytes.resize(size, 0);
        Some(Place::Bytes(Rc::new(Pieces::of(bytes))))
    }

    /// Evaluates a location attribute.
    pub(crate) fn place(
        &self,
        unit: &Unit<'data>,
        location: AttributeValue<Reader<'data>>,
        size: u64,
        object: Option<u64>,
    ) -> Place {
        let Some(expression) = self.expression(unit, location) else {
            return Place::Nowhere(Missing::OptimizedOut);
        };
        match self.evaluate(unit, expression, object, 0) {
            Ok(pieces) => self.put_together(unit, &pieces, size),
            Err(why) => Place::Nowhere(why),
        }
    }

    /// The expression that holds at this frame's address.
    fn expression(
        &self,
        unit: &Unit<'data>,
        location: AttributeValue<Reader<'data>>,
    ) -> Option<Expression<Reader<'data>>> {
        match location {
            AttributeValue::Exprloc(expression) => Some(expression),
            // DWARF 2 and 3.
            AttributeValue::Block(block) => Some(Expression(block)),
            location => {
                let at = self.lookup()?;
                let mut entries = unit.reference().attr_locations(location).ok()??;
                while let Ok(Some(entry)) = entries.next() {
                    if entry.range.begin <= at && at < entry.range.end {
                        return Some(entry.data);
                    }
                }
                None
            }
        }
    }

    fn put_together(&self, unit: &Unit<'data>, pieces: &Pieced<'data>, size: u64) -> Place {
        if let [piece] = pieces.as_slice()
            && piece.size_in_bits.is_none()
        {
            match piece.location {
                Location::Address { address } => return Place::Memory(address),
                Location::ImplicitPointer { .. } => return Place::Synthetic,
                Location::Empty => return Place::Nowhere(Missing::OptimizedOut),
                _ => {}
            }
        }
        let size = usize::try_from(size).unwrap_or(OBJECT).min(OBJECT);
        let mut object = Pieces::default();
        for piece in pieces {
            let wanted = match piece.size_in_bits {
                Some(bits) => usize::try_from(bits.div_ceil(8)).unwrap_or(OBJECT),
                None => size,
            };
            let wanted = wanted.min(OBJECT.saturating_sub(object.bytes.len()));
            let is_bits = piece.size_in_bits.is_some_and(|bits| bits % 8 != 0)
                || piece.bit_offset.is_some_and(|bits| bits % 8 != 0);
            let skip = usize::try_from(piece.bit_offset.unwrap_or(0) / 8).unwrap_or(OBJECT);
            if is_bits {
                (0..wanted).for_each(|_| object.push(Err(Missing::OptimizedOut)));
            } else {
                self.piece(unit, &piece.location, skip, wanted, &mut object);
            }
        }
        // What no piece covers.
        while object.bytes.len() < size {
            object.push(Err(Missing::OptimizedOut));
        }
        if object.missing.iter().all(Option::is_some)
            && let Some(why) = object.missing.first().copied().flatten()
        {
            return Place::Nowhere(why);
        }
        object.register = match pieces.first() {
            Some(piece) if pieces.len() == 1 => match piece.location {
                Location::Register { register } => Some(register.0),
                _ => None,
            },
            _ => None,
        };
        Place::Bytes(Rc::new(object))
    }

    fn piece(
        &self,
        unit: &Unit<'data>,
        location: &Location<Reader<'data>>,
        skip: usize,
        wanted: usize,
        object: &mut Pieces,
    ) {
        let known: Vec<u8> = match location {
            Location::Address { address } => {
                let from = address.wrapping_add(skip as u64);
                let mut bytes = vec![0; wanted];
                let read = self.process.memory.read(Avma(from), &mut bytes);
                for (number, byte) in bytes.into_iter().enumerate() {
                    let at = from.wrapping_add(number as u64);
                    object.push(match number < read {
                        true => Ok(byte),
                        false => Err(Missing::NotInTheCore(at)),
                    });
                }
                return;
            }
            Location::Register { register } => {
                let value = self.register(unit, register.0);
                value.map_or_else(|_| Vec::new(), |value| value.to_le_bytes().to_vec())
            }
            Location::Value { value } => value_bytes(*value, skip.saturating_add(wanted)),
            Location::Bytes { value } => value.slice().to_vec(),
            Location::Empty | Location::ImplicitPointer { .. } => Vec::new(),
        };
        for number in 0..wanted {
            let byte = known.get(number.saturating_add(skip)).copied();
            object.push(byte.ok_or(Missing::OptimizedOut));
        }
    }

    /// Evaluates an expression whose result is a number, not a place.
    pub(crate) fn number(
        &self,
        unit: &Unit<'data>,
        expression: Expression<Reader<'data>>,
        depth: usize,
    ) -> Result<u64, Missing> {
        let value = self.value(unit, expression, depth)?;
        value.to_u64(u64::MAX).map_err(|_| Missing::OptimizedOut)
    }

    /// Evaluates an expression whose result is a value, not a place.
    fn value(
        &self,
        unit: &Unit<'data>,
        expression: Expression<Reader<'data>>,
        depth: usize,
    ) -> Result<Value, Missing> {
        let pieces = self.evaluate(unit, expression, None, depth)?;
        match pieces.first().map(|piece| piece.location) {
            Some(Location::Address { address }) => Ok(Value::Generic(address)),
            Some(Location::Value { value }) => Ok(value),
            Some(Location::Register { register }) => {
                self.register(unit, register.0).map(Value::Generic)
            }
            _ => Err(Missing::OptimizedOut),
        }
    }

    /// The value of a register. GCC names a register that callees may change only if none of them does (its ranges end
    /// before the call otherwise); other compilers name it although it is gone.
    fn register(&self, unit: &Unit<'data>, number: u16) -> Result<u64, Missing> {
        let here = self.here().ok_or(Missing::OptimizedOut)?;
        let own = here.registers.get(number);
        let inherited = || here.inherited.get(number).filter(|_| unit.is_of_gcc());
        own.or_else(inherited).ok_or(Missing::OptimizedOut)
    }

    pub(crate) fn evaluate(
        &self,
        unit: &Unit<'data>,
        expression: Expression<Reader<'data>>,
        object: Option<u64>,
        depth: usize,
    ) -> Result<Pieced<'data>, Missing> {
        if depth > DEPTH {
            return Err(Missing::OptimizedOut);
        }
        self.try_evaluate(unit, expression, object, depth)
            .map_err(|stop| match stop {
                Stop::Missing(why) => why,
                Stop::Dwarf => Missing::OptimizedOut,
            })
    }

    fn try_evaluate(
        &self,
        unit: &Unit<'data>,
        expression: Expression<Reader<'data>>,
        object: Option<u64>,
        depth: usize,
    ) -> Result<Pieced<'data>, Stop> {
        let mut evaluation = expression.evaluation(unit.unit.encoding());
        evaluation.set_max_iterations(STEPS);
        if let Some(object) = object {
            evaluation.set_initial_value(object);
            evaluation.set_object_address(object);
        }
        let module = &self.function.module;
        let mut result = evaluation.evaluate()?;
        for _ in 0..REQUESTS {
            result = match result {
                EvaluationResult::Complete => return Ok(evaluation.as_result().to_vec()),
                EvaluationResult::RequiresMemory {
                    address,
                    size,
                    base_type,
                    ..
                } => {
                    let mut word = [0; 8];
                    let wanted = word.get_mut(..usize::from(size)).ok_or(Stop::Dwarf)?;
                    if self.process.memory.read(Avma(address), wanted) != usize::from(size) {
                        return Err(Stop::Missing(Missing::NotInTheCore(address)));
                    }
                    evaluation.resume_with_memory(typed(unit, base_type, &word)?)?
                }
                EvaluationResult::RequiresRegister {
                    register,
                    base_type,
                } => {
                    let value = self.register(unit, register.0)?.to_le_bytes();
                    evaluation.resume_with_register(typed(unit, base_type, &value)?)?
                }
                EvaluationResult::RequiresFrameBase => {
                    evaluation.resume_with_frame_base(self.frame_base(depth)?)?
                }
                EvaluationResult::RequiresCallFrameCfa => {
                    let cfa = self.here().and_then(|here| here.cfa);
                    evaluation.resume_with_call_frame_cfa(cfa.ok_or(Stop::Dwarf)?.0)?
                }
                EvaluationResult::RequiresAtLocation(reference) => {
                    let target = match reference {
                        gimli::DieReference::UnitRef(at) => unit.unit.entry(at).ok(),
                        gimli::DieReference::DebugInfoRef(at) => {
                            let die = module.die_at(&unit.space, at);
                            die.map(|die| die.entry)
                        }
                    };
                    let location =
                        target.and_then(|target| target.attr_value(gimli::DW_AT_location));
                    let code = location.and_then(|location| self.expression(unit, location));
                    let nothing = EndianSlice::new(&[], LittleEndian);
                    evaluation.resume_with_at_location(code.map_or(nothing, |code| code.0))?
                }
                EvaluationResult::RequiresEntryValue(expression) => {
                    let value = self.entry_value(unit, expression, depth)?;
                    evaluation.resume_with_entry_value(value)?
                }
                EvaluationResult::RequiresParameterRef(offset) => {
                    let value = self.parameter(unit, offset, depth)?;
                    let value = value.to_u64(u64::MAX)?;
                    evaluation.resume_with_parameter_ref(value)?
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    let address = address.wrapping_add(module.bias);
                    evaluation.resume_with_relocated_address(address)?
                }
                EvaluationResult::RequiresIndexedAddress { index, relocate } => {
                    let address = unit.reference().address(index)?;
                    let bias = if relocate { module.bias } else { 0 };
                    evaluation.resume_with_indexed_address(address.wrapping_add(bias))?
                }
                EvaluationResult::RequiresBaseType(offset) => {
                    let kind = value_type(unit, offset).unwrap_or(ValueType::Generic);
                    evaluation.resume_with_base_type(kind)?
                }
                // Where thread-local variables are is not known.
                _ => return Err(Stop::Dwarf),
            };
        }
        Err(Stop::Dwarf)
    }

    fn frame_base(&self, depth: usize) -> Result<u64, Missing> {
        let base = self.function.attr(gimli::DW_AT_frame_base);
        let unit = &self.function.unit;
        let expression = base.and_then(|base| self.expression(unit, base));
        let expression = expression.ok_or(Missing::OptimizedOut)?;
        self.number(unit, expression, depth.saturating_add(1))
    }

    /// What a register held when the function was entered: the caller's call site says how it was made.
    fn entry_value(
        &self,
        _unit: &Unit<'data>,
        wanted: Expression<Reader<'data>>,
        depth: usize,
    ) -> Result<Value, Missing> {
        let is_it = |parameter: &Die<'data>| {
            let location = parameter.attr(gimli::DW_AT_location);
            matches!(location, Some(AttributeValue::Exprloc(found)) if same(found, wanted))
        };
        self.at_call_site(&is_it, depth)
    }

    fn parameter(
        &self,
        unit: &Unit<'data>,
        offset: UnitOffset,
        depth: usize,
    ) -> Result<Value, Missing> {
        let module = &self.function.module;
        let unit = module.die_at(
            &unit.space,
            gimli::DebugInfoOffset(
                unit.unit
                    .header
                    .debug_info_offset()
                    .map_or(0, |start| start.0)
                    .saturating_add(offset.0),
            ),
        );
        let wanted = unit.ok_or(Missing::OptimizedOut)?.id();
        let is_it = |parameter: &Die<'data>| {
            let means = parameter
                .follow(gimli::DW_AT_call_parameter)
                .or_else(|| parameter.follow(gimli::DW_AT_abstract_origin));
            means.is_some_and(|means| means.id() == wanted)
        };
        self.at_call_site(&is_it, depth)
    }

    /// The value of the parameter that `is_it` recognizes, at the call site that called this frame's function.
    fn at_call_site(
        &self,
        is_it: &dyn Fn(&Die<'data>) -> bool,
        depth: usize,
    ) -> Result<Value, Missing> {
        let found;
        let calls = match self.tail {
            [] => {
                found = self.calls_here(depth).ok_or(Missing::OptimizedOut)?;
                &found
            }
            tail => tail,
        };
        let ((caller, site), before) = calls.split_last().ok_or(Missing::OptimizedOut)?;
        let parameters = site.children(1 << 10);
        let parameter = parameters.iter().find(|one| is_it(one));
        let parameter = parameter.ok_or(Missing::OptimizedOut)?;
        let value = parameter
            .attr(gimli::DW_AT_call_value)
            .or_else(|| parameter.attr(gimli::DW_AT_GNU_call_site_value));
        let Some(AttributeValue::Exprloc(value)) = value else {
            return Err(Missing::OptimizedOut);
        };
        let is_on_stack = before.is_empty();
        let frame = Frame {
            process: self.process,
            frames: self.frames,
            number: self.number.saturating_add(is_on_stack.into()),
            function: caller,
            tail: before,
        };
        frame.value(&site.unit, value, depth.saturating_add(1))
    }

    /// The call of the caller that led to this frame's function, and the tail calls between them. `None` if there are
    /// several ways.
    fn calls_here(&self, depth: usize) -> Option<Vec<Call<'data>>> {
        let call = self.call_site()?;
        let (caller, site) = &call;
        if self.calls_this(site, caller, depth) {
            return Some(vec![call]);
        }
        let target = called(site)?;
        let mut ways = Vec::new();
        self.tail_calls(&target, &mut vec![call], &mut ways)?;
        match ways.len() {
            1 => ways.pop(),
            _ => None,
        }
    }

    /// Adds the ways from `target`, to which `calls` led, to this frame's function. `None` if that is not certain.
    fn tail_calls(
        &self,
        target: &Die<'data>,
        calls: &mut Vec<Call<'data>>,
        ways: &mut Vec<Vec<Call<'data>>>,
    ) -> Option<()> {
        let function = self.defined(target)?;
        let is_known = |(known, _): &Call<'data>| known.id() == function.id();
        if calls.len() > TAIL_CALLS || calls.iter().any(is_known) {
            return None;
        }
        for site in self.process.functions.tail_calls(&function) {
            let next = called(&site)?;
            calls.push((function.clone(), site));
            if self.is_this(&next) {
                ways.push(calls.clone());
            } else {
                self.tail_calls(&next, calls, ways)?;
            }
            calls.pop();
        }
        Some(())
    }

    /// The function with code that an entry means, which may only declare it.
    fn defined(&self, target: &Die<'data>) -> Option<Die<'data>> {
        let key = (target.id(), self.function.id());
        let functions = self.process.functions;
        functions.remembered_definition(key, || self.find_definition(target))
    }

    fn find_definition(&self, target: &Die<'data>) -> Option<Die<'data>> {
        let has_code = |die: &Die<'data>| {
            die.entry.has_attr(gimli::DW_AT_low_pc) || die.entry.has_attr(gimli::DW_AT_ranges)
        };
        if has_code(target) {
            return Some(target.clone());
        }
        let is_it = |die: &Die<'data>| {
            die.tag() == gimli::DW_TAG_subprogram && has_code(die) && is_same(die, target)
        };
        [target, self.function].into_iter().find_map(|known| {
            let root = known.unit.unit.header.root_offset();
            let root = known.module.die(&known.unit, root)?;
            let mut functions = root.children(FUNCTIONS).into_iter();
            functions.find(is_it)
        })
    }

    /// The caller's function, and its call site that returns to it.
    fn call_site(&self) -> Option<Call<'data>> {
        let here = self.here()?;
        let caller = self.frames.get(self.number.checked_add(1)?)?;
        let is_called = here.frame.trust == cdh_symbolize::FrameTrust::Registers
            || here.frame.is_return_address;
        if !caller.frame.is_return_address
            || caller.frame.trust != cdh_symbolize::FrameTrust::Cfi
            || !is_called
        {
            return None;
        }
        let module = (self.process.module)(caller.frame.module?)?;
        let (lookup, after) = (caller.frame.lookup_svma()?.0, caller.frame.svma?.0);
        let function = self.process.functions.find(&module, lookup)?;
        let site = self.process.functions.call_site(&function, after)?;
        Some((function, site))
    }

    /// Whether a call site's target is this frame's function: a function that it tail called has other parameters.
    fn calls_this(&self, site: &Die<'data>, caller: &Die<'data>, depth: usize) -> bool {
        match called(site) {
            Some(origin) => self.is_this(&origin),
            None => self.calls_this_by_pointer(site, caller, depth),
        }
    }

    /// Whether a called function is that of this frame.
    fn is_this(&self, origin: &Die<'data>) -> bool {
        is_same(self.function, origin)
    }

    fn calls_this_by_pointer(&self, site: &Die<'data>, caller: &Die<'data>, depth: usize) -> bool {
        let target = site
            .attr(gimli::DW_AT_call_target)
            .or_else(|| site.attr(gimli::DW_AT_GNU_call_site_target));
        let Some(AttributeValue::Exprloc(target)) = target else {
            return false;
        };
        let frame = Frame {
            process: self.process,
            frames: self.frames,
            number: self.number.saturating_add(1),
            function: caller,
            tail: &[],
        };
        let entry = scope::entry_of(self.function);
        let entry = entry.map(|entry| entry.wrapping_add(self.function.module.bias));
        let target = frame.number(&site.unit, target, depth.saturating_add(1));
        entry.is_some() && target.ok() == entry
    }
}

/// The function that a call site calls.
fn called<'data>(site: &Die<'data>) -> Option<Die<'data>> {
    site.follow(gimli::DW_AT_call_origin)
        .or_else(|| site.follow(gimli::DW_AT_abstract_origin))
}

/// Whether a called function is this one: itself, or declared where it is called and defined in another unit.
fn is_same(function: &Die<'_>, called: &Die<'_>) -> bool {
    let own: Vec<DieId> = function.chain().iter().map(Die::id).collect();
    if called.chain().iter().any(|die| own.contains(&die.id())) {
        return true;
    }
    if !called.flag(gimli::DW_AT_external) {
        return false;
    }
    match (called.linkage_name(), function.linkage_name()) {
        (Some(there), Some(here)) => there == here,
        (Some(there), None) => function.name().as_ref() == Some(&there),
        // Libraries in C have several names for a function.
        (None, here) => {
            let there = called.name();
            there.is_some() && (there == here || there == function.name() && is_c(function))
        }
    }
}

fn is_c(die: &Die<'_>) -> bool {
    matches!(
        die.unit.language(),
        Some(
            gimli::DW_LANG_C
                | gimli::DW_LANG_C89
                | gimli::DW_LANG_C99
                | gimli::DW_LANG_C11
                | gimli::DW_LANG_C17
        )
    )
}

/// Why an evaluation ended.
enum Stop {
    Missing(Missing),
    Dwarf,
}

impl From<gimli::Error> for Stop {
    fn from(_: gimli::Error) -> Self {
        Self::Dwarf
    }
}

impl From<Missing> for Stop {
    fn from(why: Missing) -> Self {
        Self::Missing(why)
    }
}

/// Whether two expressions name the same register.
fn same(found: Expression<Reader<'_>>, wanted: Expression<Reader<'_>>) -> bool {
    found.0.slice() == wanted.0.slice()
}

fn value_type(unit: &Unit<'_>, offset: UnitOffset) -> Option<ValueType> {
    let entry = unit.unit.entry(offset).ok()?;
    ValueType::from_entry(&entry).ok().flatten()
}

/// A word as the type at `offset` has it; 0 is the generic type.
fn typed(unit: &Unit<'_>, offset: UnitOffset, word: &[u8; 8]) -> Result<Value, Stop> {
    let kind = match offset.0 {
        0 => ValueType::Generic,
        _ => value_type(unit, offset).ok_or(Stop::Dwarf)?,
    };
    match kind {
        ValueType::Generic => Ok(Value::Generic(u64::from_le_bytes(*word))),
        kind => Ok(Value::parse(kind, EndianSlice::new(word, LittleEndian))?),
    }
}

/// The bytes of a computed value. Signed ones keep their sign in a larger object.
fn value_bytes(value: Value, size: usize) -> Vec<u8> {
    let (word, negative) = match value {
        Value::Generic(value) | Value::U64(value) => (value, false),
        Value::I8(value) => (i64::from(value) as u64, value < 0),
        Value::I16(value) => (i64::from(value) as u64, value < 0),
        Value::I32(value) => (i64::from(value) as u64, value < 0),
        Value::I64(value) => (value as u64, value < 0),
        Value::U8(value) => (value.into(), false),
        Value::U16(value) => (value.into(), false),
        Value::U32(value) => (value.into(), false),
        Value::F32(value) => return value.to_le_bytes().to_vec(),
        Value::F64(value) => return value.to_le_bytes().to_vec(),
    };
    let mut bytes = word.to_le_bytes().to_vec();
    if negative {
        bytes.resize(size.clamp(8, 16), 0xff);
    }
    bytes
}

/// A variable that is a constant.
pub(crate) fn constant_place<'data>(
    die: &Die<'data>,
    constant: AttributeValue<Reader<'data>>,
    size: u64,
) -> Place {
    let size = usize::try_from(size).unwrap_or(OBJECT).min(OBJECT);
    let mut bytes = match constant {
        AttributeValue::Block(block) => block.slice().to_vec(),
        AttributeValue::String(_)
        | AttributeValue::DebugStrRef(_)
        | AttributeValue::DebugLineStrRef(_)
        | AttributeValue::DebugStrOffsetsIndex(_) => {
            let text = die.unit.reference().attr_string(constant);
            text.map_or_else(|_| Vec::new(), |text| text.slice().to_vec())
        }
        AttributeValue::Data16(value) => value.to_le_bytes().to_vec(),
        AttributeValue::Addr(value) => value.to_le_bytes().to_vec(),
        AttributeValue::Sdata(value) => {
            let mut bytes = value.to_le_bytes().to_vec();
            bytes.resize(16, if value < 0 { 0xff } else { 0 });
            bytes
        }
        value => match value.udata_value() {
            Some(value) => value.to_le_bytes().to_vec(),
            None => return Place::Nowhere(Missing::OptimizedOut),
        },
    };
    bytes.resize(size, 0);
    Place::Bytes(Rc::new(Pieces::of(bytes)))
}
