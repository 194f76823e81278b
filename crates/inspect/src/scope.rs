//! Which functions an address is in, and which variables are visible there.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use gimli::{AttributeValue, DebuggingInformationEntry, UnitOffset};

use crate::dwarf::{Die, DieId, Module, Unit};

/// Entries of a function that are looked at, and how deep blocks and inlined calls nest.
const CHILDREN: usize = 1 << 16;
const NESTING: usize = 256;
/// Entries of a function among which call sites are searched.
const SITES: usize = 1 << 20;
/// Addresses whose functions are remembered.
const ADDRESSES: usize = 4096;
/// Functions of one unit.
const FUNCTIONS: usize = 1 << 20;

/// A function or an inlined call, with the blocks in it that hold an address.
pub(crate) struct Scope<'data> {
    /// Entry of the function or the inlined call.
    pub(crate) die: Die<'data>,
    pub(crate) parameters: Vec<Die<'data>>,
    /// Innermost block first. An entry of an abstract function has no location.
    pub(crate) locals: Vec<Die<'data>>,
}

/// The functions at one address: innermost inlined call first, the function itself last.
pub(crate) struct Scopes<'data> {
    pub(crate) scopes: Vec<Scope<'data>>,
    pub(crate) function: Die<'data>,
}

/// Functions by address: start, end, entry.
type Functions = Rc<Vec<(u64, u64, UnitOffset)>>;
/// The entries of the call sites of a function.
#[derive(Default)]
struct CallSites {
    /// By the address that the call returns to.
    returning: HashMap<u64, UnitOffset>,
    tail: Vec<UnitOffset>,
}

/// Remembers where the functions of a unit are, which one an address is in, and the call sites of a function: stacks
/// pass the same ones again and again.
#[derive(Default)]
pub(crate) struct FunctionIndex<'data> {
    units: RefCell<HashMap<DieId, Functions>>,
    /// By the module's number and the address.
    known: RefCell<HashMap<(usize, u64), Option<Die<'data>>>>,
    call_sites: RefCell<HashMap<DieId, Rc<CallSites>>>,
    /// By the entry that means a function, and the function that asks.
    definitions: RefCell<HashMap<(DieId, DieId), Option<Die<'data>>>>,
}

impl<'data> FunctionIndex<'data> {
    /// The innermost function at `at`, as the file states it.
    pub(crate) fn find(&self, module: &Rc<Module<'data>>, at: u64) -> Option<Die<'data>> {
        let key = (module.index, at);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let found = module
            .unit_at(at)
            .and_then(|unit| self.find_in_unit(module, &unit, at));
        let mut all = self.known.borrow_mut();
        if all.len() >= ADDRESSES {
            all.clear();
        }
        all.insert(key, found.clone());
        found
    }

    fn find_in_unit(
        &self,
        module: &Rc<Module<'data>>,
        unit: &Rc<Unit<'data>>,
        at: u64,
    ) -> Option<Die<'data>> {
        let root = module.die(unit, unit.unit.header.root_offset())?;
        let known = self.units.borrow().get(&root.id()).cloned();
        let functions = known.unwrap_or_else(|| {
            let mut found = Vec::new();
            // What comes before an error is sound.
            let _ = list(unit, &mut found);
            let found = Rc::new(found);
            self.units.borrow_mut().insert(root.id(), Rc::clone(&found));
            found
        });
        let holding = functions
            .iter()
            .filter(|(start, end, _)| *start <= at && at < *end);
        let least = holding.min_by_key(|(start, end, _)| end.saturating_sub(*start))?;
        module.die(unit, least.2)
    }

    /// The call site in `function` that returns to `after`, also in blocks and inlined calls.
    pub(crate) fn call_site(&self, function: &Die<'data>, after: u64) -> Option<Die<'data>> {
        let sites = self.call_sites(function);
        function
            .module
            .die(&function.unit, *sites.returning.get(&after)?)
    }

    /// The tail calls of `function`.
    pub(crate) fn tail_calls(&self, function: &Die<'data>) -> Vec<Die<'data>> {
        let sites = self.call_sites(function);
        let die = |at: &UnitOffset| function.module.die(&function.unit, *at);
        sites.tail.iter().filter_map(die).collect()
    }

    fn call_sites(&self, function: &Die<'data>) -> Rc<CallSites> {
        let known = self.call_sites.borrow().get(&function.id()).cloned();
        known.unwrap_or_else(|| {
            let mut found = CallSites::default();
            // What comes before an error is sound.
            let _ = list_call_sites(function, &mut found);
            let found = Rc::new(found);
            let mut all = self.call_sites.borrow_mut();
            all.insert(function.id(), Rc::clone(&found));
            found
        })
    }

    /// What `find` answers, or answered before for the same key.
    pub(crate) fn remembered_definition(
        &self,
        key: (DieId, DieId),
        find: impl FnOnce() -> Option<Die<'data>>,
    ) -> Option<Die<'data>> {
        if let Some(known) = self.definitions.borrow().get(&key) {
            return known.clone();
        }
        let found = find();
        let mut all = self.definitions.borrow_mut();
        if all.len() >= ADDRESSES {
            all.clear();
        }
        all.insert(key, found.clone());
        found
    }
}

fn list_call_sites(function: &Die<'_>, found: &mut CallSites) -> gimli::Result<()> {
    let unit = function.unit.reference();
    let entries_at = |at| function.unit.unit.entries_raw(Some(at));
    let start = function.entry.offset();
    let mut entries = entries_at(start)?;
    let mut entry = DebuggingInformationEntry::null();
    // The depth of an entry below which nothing is looked at.
    let mut passed_over = None;
    for _ in 0..SITES {
        let (at, depth) = (entries.next_offset(), entries.next_depth());
        if entries.is_empty() || (at != start && depth <= 0) {
            break;
        }
        let Some(abbreviation) = entries.read_abbreviation()? else {
            continue;
        };
        entries.skip_attributes(abbreviation.attributes())?;
        if passed_over.is_some_and(|passed_over| depth > passed_over) {
            continue;
        }
        passed_over = None;
        match abbreviation.tag() {
            gimli::DW_TAG_lexical_block | gimli::DW_TAG_inlined_subroutine => {}
            gimli::DW_TAG_call_site | gimli::DW_TAG_GNU_call_site => {
                entries_at(at)?.read_entry(&mut entry)?;
                // GNU call sites of DWARF 4 give the return address as their own.
                let returns = entry
                    .attr_value(gimli::DW_AT_call_return_pc)
                    .or_else(|| entry.attr_value(gimli::DW_AT_low_pc));
                let is = |name| matches!(entry.attr_value(name), Some(AttributeValue::Flag(true)));
                if is(gimli::DW_AT_call_tail_call) || is(gimli::DW_AT_GNU_tail_call) {
                    found.tail.push(at);
                } else if let Some(returns) = returns
                    && let Ok(Some(returns)) = unit.attr_address(returns)
                {
                    found.returning.entry(returns).or_insert(at);
                }
                passed_over = Some(depth);
            }
            _ if at == start => {}
            _ => passed_over = Some(depth),
        }
    }
    Ok(())
}

fn list(unit: &Unit<'_>, found: &mut Vec<(u64, u64, UnitOffset)>) -> gimli::Result<()> {
    let reference = unit.reference();
    let mut entries = unit.unit.entries_raw(None)?;
    let mut entry = DebuggingInformationEntry::null();
    while !entries.is_empty() && found.len() < FUNCTIONS {
        let at = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else {
            continue;
        };
        if abbreviation.tag() != gimli::DW_TAG_subprogram {
            entries.skip_attributes(abbreviation.attributes())?;
            continue;
        }
        let mut one = unit.unit.entries_raw(Some(at))?;
        one.read_entry(&mut entry)?;
        entries.skip_attributes(abbreviation.attributes())?;
        let mut ranges = reference.die_ranges(&entry)?;
        while let Some(range) = ranges.next()? {
            if range.begin != 0 && range.begin < range.end {
                found.push((range.begin, range.end, at));
            }
        }
    }
    Ok(())
}

/// Whether an entry says that it holds `at`; `None` if it has no addresses.
fn holds(die: &Die<'_>, at: u64) -> Option<bool> {
    let has = |name| die.entry.has_attr(name);
    if !has(gimli::DW_AT_low_pc) && !has(gimli::DW_AT_ranges) {
        return None;
    }
    let mut ranges = die.unit.reference().die_ranges(&die.entry).ok()?;
    while let Ok(Some(range)) = ranges.next() {
        if range.begin <= at && at < range.end {
            return Some(true);
        }
    }
    Some(false)
}

/// The function's first address.
pub(crate) fn entry_of(die: &Die<'_>) -> Option<u64> {
    let unit = die.unit.reference();
    if let Some(entry) = die.attr(gimli::DW_AT_entry_pc)
        && let Ok(Some(at)) = unit.attr_address(entry)
    {
        return Some(at);
    }
    let low = die.attr(gimli::DW_AT_low_pc);
    if let Some(low) = low.and_then(|low| unit.attr_address(low).ok().flatten()) {
        return Some(low);
    }
    let mut ranges = unit.die_ranges(&die.entry).ok()?;
    Some(ranges.next().ok()??.begin)
}

/// What is visible at `at` in `function`.
pub(crate) fn scopes<'data>(function: Die<'data>, at: u64) -> Scopes<'data> {
    let mut scopes = Vec::new();
    collect(&function, at, 0, &mut scopes);
    // Blocks were closed before what contains them: innermost first.
    Scopes { scopes, function }
}

/// Adds the scopes below and at `die`, a function or an inlined call.
fn collect<'data>(die: &Die<'data>, at: u64, nesting: usize, scopes: &mut Vec<Scope<'data>>) {
    let mut scope = Scope {
        die: die.clone(),
        parameters: Vec::new(),
        locals: Vec::new(),
    };
    block(die, at, nesting, &mut scope, scopes);
    scopes.push(scope);
}

/// Adds the variables of a block; those of blocks in it come before its own.
fn block<'data>(
    die: &Die<'data>,
    at: u64,
    nesting: usize,
    scope: &mut Scope<'data>,
    scopes: &mut Vec<Scope<'data>>,
) {
    if nesting > NESTING {
        return;
    }
    let nesting = nesting.saturating_add(1);
    let (mut own, mut seen) = (Vec::new(), HashSet::new());
    for child in die.children(CHILDREN) {
        if let Some(origin) = child.attr(gimli::DW_AT_abstract_origin)
            && let Some(origin) = child.resolve(origin)
        {
            seen.insert(origin.id());
        }
        match child.tag() {
            gimli::DW_TAG_formal_parameter => scope.parameters.push(child),
            gimli::DW_TAG_variable => own.push(child),
            gimli::DW_TAG_inlined_subroutine if holds(&child, at) == Some(true) => {
                collect(&child, at, nesting, scopes);
            }
            gimli::DW_TAG_lexical_block | gimli::DW_TAG_try_block | gimli::DW_TAG_catch_block
                if holds(&child, at) != Some(false) =>
            {
                block(&child, at, nesting, scope, scopes);
            }
            _ => {}
        }
    }
    // What the concrete function does not mention was optimized out.
    let abstract_block = die.follow(gimli::DW_AT_abstract_origin);
    for child in abstract_block.iter().flat_map(|die| die.children(CHILDREN)) {
        if seen.contains(&child.id()) {
            continue;
        }
        match child.tag() {
            gimli::DW_TAG_formal_parameter => scope.parameters.push(child),
            gimli::DW_TAG_variable => own.push(child),
            _ => {}
        }
    }
    scope.locals.append(&mut own);
}

/// Whether an attribute only declares a variable that is defined elsewhere.
pub(crate) fn is_declaration(die: &Die<'_>) -> bool {
    matches!(
        die.attr(gimli::DW_AT_declaration),
        Some(AttributeValue::Flag(true))
    )
}
