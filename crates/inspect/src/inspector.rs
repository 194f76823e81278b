//! The variables of a frame.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cdh_elfcore::{Memory, Registers};
use cdh_symbolize::{
    FrameRegisters, LoadedModule, ModuleDwarf, SectionArena, Surroundings, Unwinder,
    address_of_symbol, demangle_with_parameters, symbol_at,
};

use crate::dwarf::{Die, Module};
use crate::location::{Frame, Place, Process};
use crate::memory::ProcessMemory;
use crate::reader::{Object, ValueReader};
use crate::scope::{self, FunctionIndex, Scope, Scopes};
use crate::types::{Kind, Types};
use crate::value::{Missing, Value};

/// All variables of a process together; those of hostile debug information could take forever.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Variables of one function.
const VARIABLES: usize = 4096;
/// Symbols that are remembered.
const SYMBOLS: usize = 1 << 16;
/// Addresses whose functions are remembered.
const SCOPES: usize = 4096;
/// How deep a member is searched.
const NESTING: usize = 32;

/// A type that a variable or member has; valid for the inspector that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(usize);

/// Whether a variable is passed by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableKind {
    /// A parameter of the function.
    Argument,
    /// A variable of the function or of a block in it.
    Local,
}

/// Where a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In memory, at this address.
    Memory(u64),
    /// In this register, by DWARF number.
    Register(u16),
    /// Computed, or in several pieces.
    Computed,
    /// Nowhere.
    Nowhere,
}

/// A variable of a frame.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its type, as source code writes it.
    pub type_name: String,
    /// Its type.
    pub type_id: Option<TypeId>,
    /// Whether it is passed by the caller.
    pub kind: VariableKind,
    /// Where it is.
    pub storage: Storage,
    /// Its value.
    pub value: Value,
    /// Of an argument that was optimized out: what the caller passed.
    pub value_at_entry: Option<Value>,
}

/// A function, or an inlined call, and its variables.
#[derive(Clone, Debug)]
pub struct FunctionVariables {
    /// Its name without namespaces.
    pub name: Option<String>,
    /// In the order of the declaration.
    pub arguments: Vec<Variable>,
    /// Those of the innermost block first.
    pub locals: Vec<Variable>,
}

/// The variables of lines of backtraces, by thread id and number of the line.
pub type FrameVariables = HashMap<(u32, usize), FunctionVariables>;

/// What is at an offset in a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPlace {
    /// The member's name with those that it is in: `items.first`, `slots[3].key`. Empty for the object itself.
    pub path: String,
    /// The member's type.
    pub type_id: Option<TypeId>,
    /// The type as source code writes it.
    pub type_name: String,
    /// How far into the member the offset is.
    pub offset: u64,
}

/// The variable that an address is in.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The variable.
    pub variable: Variable,
    /// Which of its members.
    pub member: MemberPlace,
}

/// The functions at an address, by the module's number and the address in it.
type KnownScopes<'data> = HashMap<(usize, u64), Option<Rc<Scopes<'data>>>>;

/// Reads variables of the frames of one process.
pub struct Inspector<'data> {
    modules: &'data [LoadedModule<'data>],
    arena: &'data SectionArena,
    surroundings: &'data dyn Surroundings,
    memory: ProcessMemory<'data>,
    unwinder: Unwinder<'data>,
    opened: RefCell<HashMap<usize, Option<Rc<Module<'data>>>>>,
    functions: FunctionIndex<'data>,
    scopes: RefCell<KnownScopes<'data>>,
    types: Types<'data>,
    symbols: RefCell<HashMap<u64, Option<(String, u64)>>>,
    handles: RefCell<Vec<Die<'data>>>,
    until: Option<Instant>,
    containers: Cell<bool>,
}

/// How much of values is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Scalars and texts; of others only that they are there.
    Scalars,
    Everything,
}

impl<'data> Inspector<'data> {
    /// Prepares reading; nothing is read yet. The modules are those that the backtrace was made with.
    #[must_use]
    pub fn new(
        memory: &'data dyn Memory,
        modules: &'data [LoadedModule<'data>],
        arena: &'data SectionArena,
        surroundings: &'data dyn Surroundings,
    ) -> Self {
        Self {
            modules,
            arena,
            surroundings,
            memory: ProcessMemory::new(memory, modules),
            unwinder: Unwinder::new(modules),
            opened: RefCell::default(),
            functions: FunctionIndex::default(),
            scopes: RefCell::default(),
            types: Types::default(),
            symbols: RefCell::default(),
            handles: RefCell::default(),
            until: Instant::now().checked_add(TIME_LIMIT),
            containers: Cell::new(true),
        }
    }

    /// Whether containers of standard libraries are read as what they hold (the default) or as any other record.
    pub fn read_containers(&self, wanted: bool) {
        self.containers.set(wanted);
    }

    /// The frames of a thread with their registers, innermost first, at most `limit`.
    #[must_use]
    pub fn frames(&self, thread: &Registers, limit: usize) -> Vec<FrameRegisters> {
        let (frames, _) = self
            .unwinder
            .unwind_with_registers(thread, &self.memory, limit);
        frames
    }

    /// Arguments and locals of the functions that frame `number` is in: innermost inlined call first, the function
    /// itself last. Empty if there is no debug information.
    #[must_use]
    pub fn variables(&self, frames: &[FrameRegisters], number: usize) -> Vec<FunctionVariables> {
        self.read(frames, number, Depth::Everything)
    }

    /// As [`Self::variables`], but only arguments, and of those only scalars and texts: others are
    /// [`Value::Omitted`].
    #[must_use]
    pub fn arguments(&self, frames: &[FrameRegisters], number: usize) -> Vec<FunctionVariables> {
        self.read(frames, number, Depth::Scalars)
    }

    fn read(
        &self,
        frames: &[FrameRegisters],
        number: usize,
        depth: Depth,
    ) -> Vec<FunctionVariables> {
        let open = |index: usize| self.module(index);
        let process = self.process(&open);
        self.scopes(
            frames,
            number,
            |frame, scope| {
                let read = |die: &Die<'data>, kind| self.variable(frame, die, kind, depth);
                let arguments = scope.parameters.iter().take(VARIABLES);
                let locals = scope.locals.iter().take(match depth {
                    Depth::Everything => VARIABLES,
                    Depth::Scalars => 0,
                });
                FunctionVariables {
                    name: scope.die.name(),
                    arguments: arguments
                        .filter_map(|die| read(die, VariableKind::Argument))
                        .collect(),
                    locals: locals
                        .filter_map(|die| read(die, VariableKind::Local))
                        .collect(),
                }
            },
            &process,
        )
    }

    fn process<'a>(
        &'a self,
        open: &'a dyn Fn(usize) -> Option<Rc<Module<'data>>>,
    ) -> Process<'a, 'data> {
        Process {
            memory: &self.memory,
            module: open,
            functions: &self.functions,
        }
    }

    /// Calls `each` for the functions that a frame is in.
    fn scopes<T>(
        &self,
        frames: &[FrameRegisters],
        number: usize,
        each: impl Fn(Frame<'_, 'data>, &Scope<'data>) -> T,
        process: &Process<'_, 'data>,
    ) -> Vec<T> {
        let Some(found) = frames.get(number).and_then(|frame| self.scopes_of(frame)) else {
            return Vec::new();
        };
        let frame = Frame {
            process,
            frames,
            number,
            function: &found.function,
            tail: &[],
        };
        found
            .scopes
            .iter()
            .map(|scope| each(frame, scope))
            .collect()
    }

    /// The functions that a frame is in. They are remembered: the frames of many threads are at the same addresses.
    fn scopes_of(&self, frame: &FrameRegisters) -> Option<Rc<Scopes<'data>>> {
        let index = frame.frame.module?;
        let at = frame.frame.lookup_svma()?.0;
        if let Some(known) = self.scopes.borrow().get(&(index, at)) {
            return known.clone();
        }
        let find = || {
            let module = self.module(index)?;
            let function = self.functions.find(&module, at)?;
            Some(Rc::new(scope::scopes(function, at)))
        };
        let found = find();
        let mut all = self.scopes.borrow_mut();
        if all.len() >= SCOPES {
            all.clear();
        }
        all.insert((index, at), found.clone());
        found
    }

    fn module(&self, index: usize) -> Option<Rc<Module<'data>>> {
        if let Some(known) = self.opened.borrow().get(&index) {
            return known.clone();
        }
        let open = || {
            let loaded = self.modules.get(index)?;
            let file = ModuleDwarf::open(loaded, index, self.arena, self.surroundings)?;
            Some(Rc::new(Module::new(index, loaded.bias()?, file)))
        };
        let found = open();
        self.opened.borrow_mut().insert(index, found.clone());
        found
    }

    fn variable(
        &self,
        frame: Frame<'_, 'data>,
        die: &Die<'data>,
        kind: VariableKind,
        depth: Depth,
    ) -> Option<Variable> {
        let name = die.name()?;
        let of = die.type_die();
        let is_defined_elsewhere = scope::is_declaration(die)
            && !die.entry.has_attr(gimli::DW_AT_location)
            && !die.entry.has_attr(gimli::DW_AT_const_value);
        if kind == VariableKind::Local && is_defined_elsewhere {
            return None;
        }
        let size = of.as_ref().and_then(|of| self.types.size(of)).unwrap_or(0);
        let place = frame.place_of(die, size);
        let storage = match &place {
            Place::Memory(at) => Storage::Memory(*at),
            Place::Bytes(pieces) => match pieces.register {
                Some(register) => Storage::Register(register),
                None => Storage::Computed,
            },
            Place::Synthetic => Storage::Computed,
            Place::Nowhere(_) => Storage::Nowhere,
        };
        let value = match &of {
            Some(of) => {
                let object = Object {
                    of: of.clone(),
                    place,
                    at: 0,
                };
                self.value(frame, &object, depth)
            }
            None => Value::Missing(Missing::OptimizedOut),
        };
        let is_lost = value == Value::Missing(Missing::OptimizedOut);
        let value_at_entry = of
            .as_ref()
            .filter(|_| is_lost && kind == VariableKind::Argument)
            .and_then(|of| {
                let place = frame.place_at_entry(die, size)?;
                let of = of.clone();
                Some(self.value(frame, &Object { of, place, at: 0 }, depth))
            });
        Some(Variable {
            name,
            value_at_entry,
            type_name: self.types.name(of.as_ref()),
            type_id: of.map(|of| self.handle(of)),
            kind,
            storage,
            value,
        })
    }

    fn value(&self, frame: Frame<'_, 'data>, object: &Object<'data>, depth: Depth) -> Value {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return Value::Omitted;
        }
        let symbol = |at: u64| self.symbol(at);
        let address_of = |name: &str| self.address_of(name);
        let mut reader = ValueReader::new(&self.types, frame, &symbol, &address_of, self.until);
        reader.containers = self.containers.get();
        reader.scalars = depth == Depth::Scalars;
        reader.value(object, 0)
    }

    /// The symbol that an address is in, and how far.
    #[must_use]
    pub fn symbol(&self, at: u64) -> Option<(String, u64)> {
        let index = self.memory.module_at(at)?;
        if let Some(known) = self.symbols.borrow().get(&at) {
            return known.clone();
        }
        let find = || {
            let loaded = self.modules.get(index)?;
            let svma = at.wrapping_sub(loaded.bias()?);
            let (name, start) = symbol_at(loaded, svma)?;
            Some((demangle_with_parameters(&name), svma.checked_sub(start)?))
        };
        let found = find();
        let mut symbols = self.symbols.borrow_mut();
        if symbols.len() < SYMBOLS {
            symbols.insert(at, found.clone());
        }
        found
    }

    fn address_of(&self, name: &str) -> Option<u64> {
        self.modules.iter().find_map(|loaded| {
            let at = address_of_symbol(loaded, name)?;
            Some(at.wrapping_add(loaded.bias()?))
        })
    }

    fn handle(&self, of: Die<'data>) -> TypeId {
        let mut handles = self.handles.borrow_mut();
        handles.push(of);
        TypeId(handles.len().saturating_sub(1))
    }

    fn type_of(&self, id: TypeId) -> Option<Die<'data>> {
        self.handles.borrow().get(id.0).cloned()
    }

    /// The type that a pointer or reference of this type refers to.
    #[must_use]
    pub fn pointee(&self, of: TypeId) -> Option<TypeId> {
        let plain = self.types.plain(&self.type_of(of)?)?;
        match &plain.kind {
            Kind::Pointer(target) | Kind::Reference(target) => {
                target.clone().map(|target| self.handle(target))
            }
            _ => None,
        }
    }

    /// The name of a type, as source code writes it.
    #[must_use]
    pub fn type_name(&self, of: TypeId) -> String {
        self.types.name(self.type_of(of).as_ref())
    }

    /// What is at `offset` in a value of this type; `None` if it ends before that.
    #[must_use]
    pub fn member_at(&self, of: TypeId, offset: u64) -> Option<MemberPlace> {
        let mut of = self.type_of(of)?;
        let mut path = String::new();
        let mut offset = offset;
        if self
            .types
            .size(&of)
            .is_some_and(|size| offset >= size.max(1))
        {
            return None;
        }
        for _ in 0..NESTING {
            let plain = self.types.plain(&of)?;
            match &plain.kind {
                Kind::Record(record) => {
                    let mut holding = None;
                    for member in &record.members {
                        let (Some(start), Some(inner)) = (member.offset, &member.of) else {
                            continue;
                        };
                        let start = member.bits.map_or(start, |(first, _)| first / 8);
                        let size = self.types.size(inner).unwrap_or(0).max(1);
                        let is_here = start <= offset && offset < start.saturating_add(size);
                        if is_here && !member.is_static && holding.is_none() {
                            holding = Some((member, start, inner.clone()));
                        }
                    }
                    let Some((member, start, inner)) = holding else {
                        break;
                    };
                    if let Some(name) = member.name.as_ref().filter(|_| !member.is_base) {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(name);
                    }
                    offset = offset.saturating_sub(start);
                    of = inner;
                }
                Kind::Array {
                    element: Some(element),
                    ..
                } => {
                    let size = self.types.size(element).filter(|size| *size > 0)?;
                    let index = offset.checked_div(size)?;
                    path.push_str(&format!("[{index}]"));
                    offset = offset.checked_rem(size)?;
                    of = element.clone();
                }
                _ => break,
            }
        }
        Some(MemberPlace {
            path,
            type_name: self.types.name(Some(&of)),
            type_id: Some(self.handle(of)),
            offset,
        })
    }

    /// The variable of a frame that is in memory at `address`.
    #[must_use]
    pub fn owner_of(
        &self,
        frames: &[FrameRegisters],
        number: usize,
        address: u64,
    ) -> Option<Owner> {
        let functions = self.variables(frames, number);
        let all = functions
            .into_iter()
            .flat_map(|function| function.arguments.into_iter().chain(function.locals));
        all.into_iter().find_map(|variable| {
            let Storage::Memory(start) = variable.storage else {
                return None;
            };
            let offset = address.checked_sub(start)?;
            let size = self.types.size(&self.type_of(variable.type_id?)?)?;
            let member = (offset < size).then(|| self.member_at(variable.type_id?, offset))?;
            Some(Owner {
                member: member?,
                variable,
            })
        })
    }
}
