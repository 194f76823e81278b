//! Names frames: DWARF first, ELF symbols where it is silent.
//!
//! Each address is looked up once, however many threads are there; files are opened when the first
//! address falls into them. A file that is not the one that was mapped is never asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use cdh_elfcore::{ByteOrder, ElfObject, Svma};
use rayon::prelude::*;

use crate::deadline::Deadline;
use crate::debug_info::{Found, Opened, Site, Source, TailCalls};
use crate::lines::Lines;
use crate::memo::{self, Memo};
use crate::tail_call::{Pair, Pairs, TailFrame};
use crate::{
    Frame, GoTable, LoadedModule, ModuleStatus, Reason, SectionArena, Surroundings, UnwoundFrame,
    section, symbol, tail_call,
};

/// After this, names come from ELF symbols only: hostile DWARF can take forever. Gigabytes of honest
/// DWARF on a cold disk take some ten seconds.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Names frames of one process.
pub struct Symbolizer<'data> {
    modules: &'data [LoadedModule<'data>],
    arena: &'data SectionArena,
    surroundings: &'data dyn Surroundings,
    debug_infos: Vec<OnceLock<Option<Opened<'data>>>>,
    mini_debug_infos: Vec<OnceLock<Option<ElfObject<'data>>>>,
    go_tables: Vec<OnceLock<Option<GoTable<'data>>>>,
    /// By module: its identity and what is remembered of it.
    memos: Vec<OnceLock<Option<(String, Memo)>>>,
    deadline: Deadline,
}

/// Answers for the frames of some stacks.
#[derive(Debug, Default)]
pub struct SymbolTable {
    /// By module and looked-up address.
    pub(crate) found: HashMap<(usize, Svma), Found>,
    pub(crate) tail_calls: HashMap<Pair, Vec<TailFrame>>,
}

impl<'data> Symbolizer<'data> {
    /// Prepares naming; nothing is read yet.
    #[must_use]
    pub fn new(
        modules: &'data [LoadedModule<'data>],
        arena: &'data SectionArena,
        surroundings: &'data dyn Surroundings,
    ) -> Self {
        Self {
            modules,
            arena,
            surroundings,
            debug_infos: modules.iter().map(|_| OnceLock::new()).collect(),
            mini_debug_infos: modules.iter().map(|_| OnceLock::new()).collect(),
            go_tables: modules.iter().map(|_| OnceLock::new()).collect(),
            memos: modules.iter().map(|_| OnceLock::new()).collect(),
            deadline: Deadline::after(TIME_LIMIT),
        }
    }

    /// Opens the debug information that naming `frames` takes, modules in parallel.
    pub(crate) fn open<'f>(&self, frames: impl IntoIterator<Item = &'f UnwoundFrame>) {
        let mut wanted = by_module(frames);
        wanted.iter_mut().for_each(|(module, addresses)| {
            let own = self.go_table(*module);
            let is_open = |at: &u64| {
                own.is_none_or(|table| table.function(Svma(*at)).is_none())
                    && !self.remembers(*module, *at)
            };
            addresses.retain(is_open);
        });
        wanted.par_iter().for_each(|(&module, addresses)| {
            if let Some(loaded) = self.modules.get(module).filter(|_| !addresses.is_empty()) {
                self.debug_info(module, loaded, addresses);
            }
        });
    }

    /// Looks up the addresses of all frames of `stacks`, modules in parallel.
    pub fn look_up<'f>(
        &self,
        stacks: impl IntoIterator<Item = &'f [UnwoundFrame]> + Clone,
    ) -> SymbolTable {
        let wanted = by_module(stacks.clone().into_iter().flatten());
        let find = |(module, addresses): (usize, Vec<u64>)| {
            let found = self.find(module, &addresses);
            let places = addresses.into_iter().map(move |at| (module, Svma(at)));
            places.zip(found).collect::<Vec<_>>()
        };
        // Symbol tables and what is remembered are read sooner than helpers are started for them.
        let is_work = |(module, addresses): (&usize, &Vec<u64>)| {
            self.modules.get(*module).is_some_and(has_debug_info)
                && !addresses.iter().all(|at| self.remembers(*module, *at))
        };
        let found: HashMap<(usize, Svma), Found> = if wanted.iter().any(is_work) {
            wanted.into_par_iter().flat_map_iter(find).collect()
        } else {
            wanted.into_iter().flat_map(find).collect()
        };
        let pairs = tail_call::find(self, stacks, &found);
        self.remember(&found, &pairs);
        SymbolTable {
            tail_calls: pairs.frames,
            found,
        }
    }

    /// What earlier runs found out about a module, and its identity.
    pub(crate) fn memo(&self, module: usize) -> Option<&(String, Memo)> {
        let open = || {
            let identity = memo::identity(self.modules.get(module)?)?;
            let memo = is_remembered(self.modules.get(module)?)
                .then(|| self.surroundings.remembered(&format!("memo-{identity}")))
                .flatten()
                .and_then(|bytes| Memo::from_bytes((*bytes).as_ref()));
            Some((identity, memo.unwrap_or_default()))
        };
        self.memos.get(module)?.get_or_init(open).as_ref()
    }

    /// Whether an earlier run knew this address.
    fn remembers(&self, module: usize, at: u64) -> bool {
        let memo = self.memo(module);
        memo.is_some_and(|(_, memo)| memo.found.contains_key(&at))
    }

    /// Keeps what this run has found out that earlier ones had not.
    fn remember(&self, found: &HashMap<(usize, Svma), Found>, pairs: &Pairs) {
        if self.deadline.passed() {
            return;
        }
        let mut new: BTreeMap<usize, Memo> = BTreeMap::new();
        let remembered: Vec<bool> = self.modules.iter().map(is_remembered).collect();
        for ((module, at), found) in found {
            let known = self.memo(*module);
            if remembered.get(*module) == Some(&true)
                && known.is_some_and(|(_, memo)| !memo.found.contains_key(&at.0))
            {
                new.entry(*module)
                    .or_default()
                    .found
                    .insert(at.0, found.clone());
            }
        }
        for (module, key, frames) in &pairs.new {
            new.entry(*module)
                .or_default()
                .pairs
                .insert(*key, frames.clone());
        }
        for (module, mut memo) in new {
            let Some((identity, old)) = self.memo(module) else {
                continue;
            };
            if !old.is_full() {
                memo.found
                    .extend(old.found.iter().map(|(at, found)| (*at, found.clone())));
                memo.pairs
                    .extend(old.pairs.iter().map(|(key, frames)| (*key, frames.clone())));
            }
            self.surroundings
                .remember(&format!("memo-{identity}"), &memo.to_bytes());
        }
    }

    pub(crate) fn out_of_time(&self) -> bool {
        self.deadline.passed()
    }

    pub(crate) fn module_count(&self) -> usize {
        self.modules.len()
    }

    /// What DWARF says of one address, tail calls included.
    pub(crate) fn tail_calls_of(&self, module: usize, at: u64) -> Found {
        let info = self
            .modules
            .get(module)
            .and_then(|loaded| self.debug_info(module, loaded, &[at]));
        let found = info.map(|info| info.find(&[at], TailCalls::List, self.deadline));
        found.and_then(|mut found| found.pop()).unwrap_or_default()
    }

    /// Where a module's symbol tables place functions.
    pub(crate) fn addresses_of<'n>(
        &self,
        module: usize,
        names: impl Iterator<Item = &'n str>,
    ) -> HashMap<&'n str, u64> {
        let Some(loaded) = self.modules.get(module) else {
            return HashMap::new();
        };
        let Some(object) = &loaded.object else {
            return HashMap::new();
        };
        let objects: Vec<&ElfObject<'_>> = [Some(object), loaded.debug.as_ref()]
            .into_iter()
            .flatten()
            .collect();
        symbol::addresses(&objects, names)
    }

    fn find(&self, index: usize, addresses: &[u64]) -> Vec<Found> {
        let Some((_, memo)) = self.memo(index) else {
            return self.search(index, addresses);
        };
        let open: Vec<u64> = addresses
            .iter()
            .copied()
            .filter(|at| !memo.found.contains_key(at))
            .collect();
        let mut searched = if open.is_empty() {
            Vec::new()
        } else {
            self.search(index, &open)
        }
        .into_iter();
        let answer = |at: &u64| match memo.found.get(at) {
            Some(found) => found.clone(),
            None => searched.next().unwrap_or_default(),
        };
        addresses.iter().map(answer).collect()
    }

    fn search(&self, index: usize, addresses: &[u64]) -> Vec<Found> {
        let mut found = vec![Found::default(); addresses.len()];
        let Some(loaded) = self.modules.get(index) else {
            return found;
        };
        let Some(object) = &loaded.object else {
            return found;
        };
        // Go's own table knows what its debug information knows, and is read sooner.
        let own = self.go_table(index);
        let mut others: Vec<u64> = Vec::new();
        for (found, at) in found.iter_mut().zip(addresses) {
            match own.and_then(|table| table.find(*at)) {
                Some(function) => {
                    found.sites = function.sites;
                    found.entry = Some(function.entry);
                }
                None => others.push(*at),
            }
        }
        if !others.is_empty()
            && let Some(info) = self.debug_info(index, loaded, &others)
        {
            let mut answers = info
                .find(&others, TailCalls::Ignore, self.deadline)
                .into_iter();
            let open = found.iter_mut().filter(|found| found.sites.is_empty());
            for (found, answer) in open.zip(&mut answers) {
                *found = answer;
            }
        }
        let nameless = |found: &Found| found.sites.last().is_none_or(|site| site.name.is_none());
        if found.iter().any(nameless) {
            let mini = self.mini_debug_info(index, object);
            let objects: Vec<&ElfObject<'data>> = [Some(object), loaded.debug.as_ref(), mini]
                .into_iter()
                .flatten()
                .collect();
            for (found, symbol) in found.iter_mut().zip(symbol::find(&objects, addresses)) {
                let Some(symbol) = symbol.filter(|_| nameless(found)) else {
                    continue;
                };
                let name = Some(String::from_utf8_lossy(symbol.name).into_owned());
                match found.sites.last_mut() {
                    Some(site) => site.name = name,
                    None => found.sites.push(Site {
                        name,
                        location: None,
                    }),
                }
                found.entry.get_or_insert(symbol.start);
            }
        }
        found
    }

    /// The table of a Go program.
    fn go_table(&self, module: usize) -> Option<&GoTable<'data>> {
        let object = self.modules.get(module)?.object.as_ref()?;
        let table = self.go_tables.get(module)?;
        table.get_or_init(|| GoTable::open(object)).as_ref()
    }

    /// Opened the first time, with room for `addresses`.
    fn debug_info(
        &self,
        index: usize,
        loaded: &LoadedModule<'data>,
        addresses: &[u64],
    ) -> Option<&Opened<'data>> {
        let open = || {
            let objects = [loaded.debug.as_ref(), loaded.object.as_ref()];
            // DWARF is read as little-endian, for the sake of speed: big-endian programs have symbols.
            let is_little = |object: &&ElfObject<'_>| object.encoding().order == ByteOrder::Little;
            let mut objects = objects.into_iter().flatten().filter(is_little);
            let source = Source {
                module: index,
                arena: self.arena,
                surroundings: self.surroundings,
                keep: match self.memo(index) {
                    Some((_, memo)) if !memo.found.is_empty() => section::Keep::ForLater,
                    _ => section::Keep::No,
                },
            };
            let alt = loaded.alt.as_ref();
            objects.find_map(|object| Opened::open(object, alt, source, addresses, self.deadline))
        };
        self.debug_infos.get(index)?.get_or_init(open).as_ref()
    }

    fn mini_debug_info(
        &self,
        index: usize,
        object: &ElfObject<'data>,
    ) -> Option<&ElfObject<'data>> {
        let open = || {
            let bytes = section::mini_debug_info(object, self.arena.left_for(object.data()))?;
            ElfObject::parse(self.arena.keep_of(object.data(), bytes.into())).ok()
        };
        self.mini_debug_infos.get(index)?.get_or_init(open).as_ref()
    }

    /// The lines of a backtrace for `unwound`: inlined calls and tail calls get lines of their own.
    #[must_use]
    pub fn frames(&self, unwound: &[UnwoundFrame], table: &SymbolTable) -> Vec<Frame> {
        self.lines(table).of(unwound)
    }

    /// What makes lines of the frames of many stacks.
    pub(crate) fn lines<'t>(&'t self, table: &'t SymbolTable) -> Lines<'t, 'data> {
        Lines::new(self, table)
    }

    /// The load address of a module, less the one that its file states.
    pub(crate) fn bias(&self, module: usize) -> Option<u64> {
        self.modules.get(module)?.bias()
    }

    /// Why a frame has no name.
    pub(crate) fn reason(&self, frame: &UnwoundFrame) -> Reason {
        let Some(loaded) = frame.module.and_then(|index| self.modules.get(index)) else {
            return Reason::NoModule;
        };
        match (&loaded.object, &loaded.status) {
            (Some(_), _) if frame.svma.is_none() => Reason::LoadAddressUnknown,
            (Some(_), _) if has_symbols(loaded) => Reason::NotInAnyFunction,
            (Some(_), _) => Reason::NoSymbols,
            (None, ModuleStatus::Mismatch { .. }) => Reason::ModuleMismatch,
            (None, ModuleStatus::Unreadable(problem)) => Reason::Unreadable(problem.clone()),
            (None, _) => Reason::ModuleMissing,
        }
    }
}

/// The addresses to look up, by module; ascending and distinct.
fn by_module<'f>(frames: impl IntoIterator<Item = &'f UnwoundFrame>) -> BTreeMap<usize, Vec<u64>> {
    let mut addresses: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for frame in frames {
        if let (Some(module), Some(at)) = (frame.module, frame.lookup_svma()) {
            addresses.entry(module).or_default().push(at.0);
        }
    }
    addresses.values_mut().for_each(|addresses| {
        addresses.sort_unstable();
        addresses.dedup();
    });
    addresses
}

/// Whether asking a file takes longer than asking what is remembered of it: for DWARF, for symbols that are
/// compressed, for many of them.
fn is_remembered(loaded: &LoadedModule<'_>) -> bool {
    const MANY: usize = 512 << 10;
    let is_slow = |object: &ElfObject<'_>| {
        let symbols = object.section(".symtab");
        symbols.is_some_and(|symbols| symbols.data.len() >= MANY)
            || section::present(object, ".gnu_debugdata")
            || section::present(object, ".go.buildinfo")
    };
    let objects = [loaded.object.as_ref(), loaded.debug.as_ref()];
    has_debug_info(loaded) || objects.into_iter().flatten().any(is_slow)
}

/// Whether any symbol table is there: full, exported only, or compressed.
pub(crate) fn has_symbols(loaded: &LoadedModule<'_>) -> bool {
    let names = [".symtab", ".dynsym", ".gnu_debugdata"];
    let objects = [loaded.object.as_ref(), loaded.debug.as_ref()];
    objects
        .into_iter()
        .flatten()
        .any(|object| names.iter().any(|name| section::present(object, name)))
}

/// Whether lines and inlined calls are known.
pub(crate) fn has_debug_info(loaded: &LoadedModule<'_>) -> bool {
    let objects = [loaded.object.as_ref(), loaded.debug.as_ref()];
    objects
        .into_iter()
        .flatten()
        .any(|object| section::present(object, ".debug_info"))
}
