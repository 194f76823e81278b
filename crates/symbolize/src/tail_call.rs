//! Frames that a tail call removed from the stack, rebuilt as gdb does.
//!
//! The caller's call site names a function, the frame below it is another one: then the first must have
//! reached the second by tail calls. DWARF lists them, so the chain between the two is searched; of
//! several chains only what they share is certain. In glibc every `abort` takes this.

use std::collections::{BTreeMap, HashMap, HashSet};

use cdh_elfcore::Svma;

use crate::UnwoundFrame;
use crate::debug_info::{Found, Site, Target};
use crate::memo::{self, Between, PairKey};
use crate::symbolizer::Symbolizer;

/// Longest chain of tail calls that is searched.
const DEPTH: usize = 8;
/// Chains between the same two functions that are compared.
const CHAINS: usize = 64;
/// Functions that are opened for their tail calls in one backtrace.
const FUNCTIONS: usize = 500;

/// A place in a module's file.
pub(crate) type Place = (usize, u64);
/// Looked-up address of the callee and return address in the caller.
pub(crate) type Pair = (Place, Place);

/// A frame that is not on the stack.
#[derive(Clone, Debug)]
pub(crate) struct TailFrame {
    pub(crate) module: usize,
    /// The address after the jump.
    pub(crate) after: u64,
    pub(crate) site: Site,
}

/// What is between neighbours, and what of it no earlier run has found: by the caller's module.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) frames: HashMap<Pair, Vec<TailFrame>>,
    pub(crate) new: Vec<(usize, PairKey, Vec<Between>)>,
}

/// The pair of neighbouring frames, where there can be something between them.
pub(crate) fn pair(callee: &UnwoundFrame, caller: &UnwoundFrame) -> Option<Pair> {
    if callee.signal_frame || !caller.is_return_address {
        return None;
    }
    let below = (callee.module?, callee.lookup_svma()?.0);
    Some((below, (caller.module?, caller.svma?.0)))
}

/// The missing frames between neighbours, innermost first.
pub(crate) fn find<'f>(
    symbolizer: &Symbolizer<'_>,
    stacks: impl IntoIterator<Item = &'f [UnwoundFrame]>,
    table: &HashMap<(usize, Svma), Found>,
) -> Pairs {
    let mut pairs: HashSet<Pair> = HashSet::new();
    for stack in stacks {
        let neighbours = stack.iter().zip(stack.iter().skip(1));
        pairs.extend(neighbours.filter_map(|(below, above)| pair(below, above)));
    }
    let mut pairs: Vec<Pair> = pairs.into_iter().collect();
    pairs.sort_unstable();
    let mut search = Search {
        symbolizer,
        names: HashMap::new(),
        sites: HashMap::new(),
    };
    let mut open = Vec::new();
    for (callee, caller) in pairs {
        let below = table.get(&(callee.0, Svma(callee.1)));
        let above = table.get(&(caller.0, Svma(caller.1.wrapping_sub(1))));
        let (Some(below), Some(above)) = (below, above) else {
            continue;
        };
        let (Some(entry), Some(target)) = (below.entry, above.call.clone()) else {
            continue;
        };
        // A plain call, the usual case.
        let own_name = below.sites.last().and_then(|site| site.name.as_ref());
        if matches!(&target, Target::Name(name) if Some(name) == own_name) {
            continue;
        }
        open.push(((callee, caller), (callee.0, entry), target));
    }
    let mut answers = Pairs::default();
    if open.is_empty() {
        return answers;
    }
    let world = World::of(symbolizer);
    open.retain(|(pair, ..)| {
        let known = world.remembered(symbolizer, *pair);
        let is_open = known.is_none();
        if let Some(frames) = known.filter(|frames| !frames.is_empty()) {
            answers.frames.insert(*pair, frames);
        }
        is_open
    });
    let wanted = open
        .iter()
        .filter_map(|((_, caller), _, target)| match target {
            Target::Name(name) => Some((caller.0, name.clone())),
            Target::Address(_) => None,
        });
    search.resolve(wanted.collect());
    for (pair, goal, target) in open {
        let start = search
            .place(&target, pair.1.0)
            .filter(|start| *start != goal);
        let mut chains = Vec::new();
        if let Some(start) = start {
            search.chains(start, goal, &mut Vec::new(), &mut chains);
        }
        let frames: Vec<TailFrame> = shared(&chains)
            .into_iter()
            .rev()
            .map(|(module, after)| {
                let mut inside = symbolizer.tail_calls_of(module, after.wrapping_sub(1));
                let site = if inside.sites.is_empty() {
                    Site::default()
                } else {
                    inside.sites.swap_remove(0)
                };
                TailFrame {
                    module,
                    after,
                    site,
                }
            })
            .collect();
        answers.new.extend(world.to_remember(pair, &frames));
        if !frames.is_empty() {
            answers.frames.insert(pair, frames);
        }
    }
    answers
}

/// The identities of all modules: what is between two frames can depend on every one of them.
struct World {
    hash: PairKey,
    identities: Vec<Option<String>>,
}

impl World {
    fn of(symbolizer: &Symbolizer<'_>) -> Self {
        let identity = |module| {
            symbolizer
                .memo(module)
                .map(|(identity, _)| identity.clone())
        };
        let identities: Vec<Option<String>> =
            (0..symbolizer.module_count()).map(identity).collect();
        let mut named: Vec<&[u8]> = identities
            .iter()
            .flatten()
            .map(|identity| identity.as_bytes())
            .collect();
        named.sort_unstable();
        let hash = memo::key(&named);
        Self { hash, identities }
    }

    fn key(&self, (callee, caller): Pair) -> Option<PairKey> {
        let identity = |module: usize| self.identities.get(module)?.as_ref();
        Some(memo::key(&[
            &self.hash,
            identity(callee.0)?.as_bytes(),
            &callee.1.to_le_bytes(),
            identity(caller.0)?.as_bytes(),
            &caller.1.to_le_bytes(),
        ]))
    }

    fn remembered(&self, symbolizer: &Symbolizer<'_>, pair: Pair) -> Option<Vec<TailFrame>> {
        let (_, memo) = symbolizer.memo(pair.1.0)?;
        let frames = memo.pairs.get(&self.key(pair)?)?;
        let frame = |(identity, after, site): &Between| {
            let module = self
                .identities
                .iter()
                .position(|known| known.as_ref() == Some(identity))?;
            Some(TailFrame {
                module,
                after: *after,
                site: site.clone(),
            })
        };
        frames.iter().map(frame).collect()
    }

    fn to_remember(
        &self,
        pair: Pair,
        frames: &[TailFrame],
    ) -> Option<(usize, PairKey, Vec<Between>)> {
        let between = |frame: &TailFrame| {
            let identity = self.identities.get(frame.module)?.clone()?;
            Some((identity, frame.after, frame.site.clone()))
        };
        let frames: Option<Vec<Between>> = frames.iter().map(between).collect();
        Some((pair.1.0, self.key(pair)?, frames?))
    }
}

/// What all chains begin and end with.
fn shared(chains: &[Vec<Place>]) -> Vec<Place> {
    let Some((first, others)) = chains.split_first() else {
        return Vec::new();
    };
    let common = |a: &mut dyn Iterator<Item = &Place>, b: &mut dyn Iterator<Item = &Place>| {
        a.zip(b).take_while(|(a, b)| a == b).count()
    };
    let shortest = chains.iter().map(Vec::len).min().unwrap_or(0);
    let head = |other: &Vec<Place>| common(&mut first.iter(), &mut other.iter());
    let head = others.iter().map(head).min().unwrap_or(first.len());
    let tail = |other: &Vec<Place>| common(&mut first.iter().rev(), &mut other.iter().rev());
    let tail = others.iter().map(tail).min().unwrap_or(0);
    let tail = tail.min(shortest.saturating_sub(head));
    let end = first.len().saturating_sub(tail);
    let (Some(head), Some(tail)) = (first.get(..head), first.get(end..)) else {
        return Vec::new();
    };
    head.iter().chain(tail).copied().collect()
}

struct Search<'a, 'data> {
    symbolizer: &'a Symbolizer<'data>,
    /// Name as a module means it, to where it is.
    names: HashMap<(usize, String), Option<Place>>,
    /// Function to its tail calls: the address after each, and its target.
    sites: HashMap<Place, Vec<(u64, Place)>>,
}

impl Search<'_, '_> {
    /// Looks names up in symbol tables: in the file that uses them first, then in the others.
    fn resolve(&mut self, mut wanted: Vec<(usize, String)>) {
        wanted.retain(|name| !self.names.contains_key(name));
        wanted.sort_unstable();
        wanted.dedup();
        let mut open: BTreeMap<usize, Vec<&(usize, String)>> = BTreeMap::new();
        for name in &wanted {
            open.entry(name.0).or_default().push(name);
        }
        let mut left = Vec::new();
        for (module, names) in open {
            let found = self
                .symbolizer
                .addresses_of(module, names.iter().map(|name| name.1.as_str()));
            for name in names {
                match found.get(name.1.as_str()) {
                    Some(at) => _ = self.names.insert(name.clone(), Some((module, *at))),
                    None => left.push(name),
                }
            }
        }
        for module in 0..self.symbolizer.module_count() {
            if left.is_empty() {
                break;
            }
            let found = self
                .symbolizer
                .addresses_of(module, left.iter().map(|name| name.1.as_str()));
            left.retain(|name| match found.get(name.1.as_str()) {
                Some(at) => {
                    self.names.insert((*name).clone(), Some((module, *at)));
                    false
                }
                None => true,
            });
        }
        for name in left {
            self.names.insert(name.clone(), None);
        }
    }

    fn place(&mut self, target: &Target, module: usize) -> Option<Place> {
        match target {
            Target::Address(at) => Some((module, *at)),
            Target::Name(name) => {
                let key = (module, name.clone());
                self.resolve(vec![key.clone()]);
                self.names.get(&key).copied().flatten()
            }
        }
    }

    fn tail_calls(&mut self, function: Place) -> Vec<(u64, Place)> {
        if let Some(known) = self.sites.get(&function) {
            return known.clone();
        }
        if self.sites.len() >= FUNCTIONS || self.symbolizer.out_of_time() {
            return Vec::new();
        }
        let (module, at) = function;
        let found = self.symbolizer.tail_calls_of(module, at);
        let mut sites = Vec::new();
        if found.entry == Some(at) {
            let names = found
                .tail_calls
                .iter()
                .filter_map(|(_, target)| match target {
                    Target::Name(name) => Some((module, name.clone())),
                    Target::Address(_) => None,
                });
            self.resolve(names.collect());
            for (after, target) in &found.tail_calls {
                sites.extend(self.place(target, module).map(|place| (*after, place)));
            }
        }
        self.sites.insert(function, sites.clone());
        sites
    }

    /// All chains from `from` to `goal`, each as the addresses after its jumps.
    fn chains(
        &mut self,
        from: Place,
        goal: Place,
        path: &mut Vec<(Place, Place)>,
        chains: &mut Vec<Vec<Place>>,
    ) {
        if path.len() >= DEPTH || path.iter().any(|step| step.0 == from) {
            return;
        }
        for (after, to) in self.tail_calls(from) {
            if chains.len() >= CHAINS {
                return;
            }
            path.push((from, (from.0, after)));
            if to == goal {
                chains.push(path.iter().map(|step| step.1).collect());
            } else {
                self.chains(to, goal, path, chains);
            }
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_chains_share_is_certain() {
        let chain = |steps: &[u64]| steps.iter().map(|step| (0, *step)).collect::<Vec<Place>>();
        assert_eq!(shared(&[]), []);
        assert_eq!(shared(&[chain(&[1, 2])]), chain(&[1, 2]));
        assert_eq!(
            shared(&[chain(&[1, 2, 9]), chain(&[1, 3, 4, 9])]),
            chain(&[1, 9])
        );
        assert_eq!(shared(&[chain(&[1, 1]), chain(&[1])]), chain(&[1]));
        assert_eq!(shared(&[chain(&[1]), chain(&[2])]), []);
    }
}
