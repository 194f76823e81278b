//! Makes the lines of a backtrace of unwound frames and of what was found out about their addresses.
//!
//! Inlined calls and tail calls get lines of their own. Each address becomes lines once: in a process of a
//! thousand threads most of them wait in the same few places.

use std::collections::HashMap;
use std::sync::Arc;

use cdh_elfcore::{Avma, Svma};

use crate::debug_info::Site;
use crate::demangle::demangle;
use crate::symbolizer::{SymbolTable, Symbolizer};
use crate::tail_call::{self, Pair, TailFrame};
use crate::{Frame, FrameTrust, Function, Location, Reason, UnwoundFrame};

/// The line of an address, for any frame there.
#[derive(Clone)]
struct Named {
    function: Option<Arc<Function>>,
    location: Option<Arc<Location>>,
}

/// A module, an address in it as its file states it, and whether that address follows a call.
type Place = (usize, Svma, bool);

/// Lines by address, made when the first frame asks for them.
pub(crate) struct Lines<'t, 'data> {
    symbolizer: &'t Symbolizer<'data>,
    table: &'t SymbolTable,
    named: HashMap<Place, Arc<[Named]>>,
    between: HashMap<Pair, Vec<Frame>>,
}

impl<'t, 'data> Lines<'t, 'data> {
    pub(crate) fn new(symbolizer: &'t Symbolizer<'data>, table: &'t SymbolTable) -> Self {
        Self {
            symbolizer,
            table,
            named: HashMap::new(),
            between: HashMap::new(),
        }
    }

    /// The lines of a stack.
    pub(crate) fn of(&mut self, unwound: &[UnwoundFrame]) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(unwound.len());
        let mut below: Option<&UnwoundFrame> = None;
        for frame in unwound {
            if let Some(pair) = below.and_then(|below| tail_call::pair(below, frame))
                && let Some(tails) = self.table.tail_calls.get(&pair)
            {
                let symbolizer = self.symbolizer;
                let lines = self.between.entry(pair);
                let lines = lines.or_insert_with(|| {
                    let line = |tail| rebuilt(symbolizer, tail);
                    tails.iter().map(line).collect()
                });
                frames.extend_from_slice(lines);
            }
            self.expand(frame, &mut frames);
            below = Some(frame);
        }
        frames
    }

    fn expand(&mut self, unwound: &UnwoundFrame, frames: &mut Vec<Frame>) {
        let plain = Frame {
            pc: unwound.pc,
            sp: unwound.sp,
            module: unwound.module,
            svma: unwound.svma,
            trust: unwound.trust,
            function: Err(Reason::NotInAnyFunction),
            inline: false,
            location: None,
            tail_call: false,
            signal_handler: unwound.signal_frame,
            is_return_address: unwound.is_return_address,
            interpreted: false,
            language: None,
        };
        let named = self.named(unwound);
        let Some((outer, inlined)) = named.as_deref().and_then(<[Named]>::split_last) else {
            frames.push(Frame {
                function: Err(self.symbolizer.reason(unwound)),
                ..plain
            });
            return;
        };
        let line = |named: &Named, inline| Frame {
            function: match &named.function {
                Some(function) => Ok(Arc::clone(function)),
                None => Err(self.symbolizer.reason(unwound)),
            },
            location: named.location.clone(),
            inline,
            ..plain.clone()
        };
        frames.extend(inlined.iter().map(|named| line(named, true)));
        frames.push(line(outer, false));
    }

    /// What is known of the address of a frame.
    fn named(&mut self, unwound: &UnwoundFrame) -> Option<Arc<[Named]>> {
        let place = (unwound.module?, unwound.svma?, unwound.is_return_address);
        if let Some(known) = self.named.get(&place) {
            return Some(Arc::clone(known));
        }
        let found = self
            .table
            .found
            .get(&(unwound.module?, unwound.lookup_svma()?))?;
        let offset = found
            .entry
            .zip(unwound.svma)
            .and_then(|(entry, at)| at.checked_sub(Svma(entry)));
        let last = found.sites.len().saturating_sub(1);
        let named = found.sites.iter().enumerate().map(|(number, site)| Named {
            function: function(site, offset.filter(|_| number == last)),
            location: site.location.clone().map(Arc::new),
        });
        let named: Arc<[Named]> = named.collect();
        self.named.insert(place, Arc::clone(&named));
        Some(named)
    }
}

fn function(site: &Site, offset: Option<u64>) -> Option<Arc<Function>> {
    let raw = site.name.as_ref()?;
    Some(Arc::new(Function {
        name: demangle(raw),
        raw: raw.clone(),
        offset,
    }))
}

fn rebuilt(symbolizer: &Symbolizer<'_>, tail: &TailFrame) -> Frame {
    let bias = symbolizer.bias(tail.module).unwrap_or(0);
    Frame {
        pc: Avma(tail.after.wrapping_add(bias)),
        sp: None,
        module: Some(tail.module),
        svma: Some(Svma(tail.after)),
        trust: FrameTrust::Cfi,
        function: function(&tail.site, None).ok_or(Reason::NotInAnyFunction),
        inline: false,
        location: tail.site.location.clone().map(Arc::new),
        tail_call: true,
        signal_handler: false,
        is_return_address: true,
        interpreted: false,
        language: None,
    }
}
