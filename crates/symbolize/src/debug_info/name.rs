//! Names of functions: linkage names, or names with the namespaces around them.
//!
//! An inlined or out-of-line copy refers to its abstract entry, which may be in another unit, or in the
//! file that several files share (dwz). Chains of references are followed a bounded number of times.

use std::collections::HashMap;
use std::rc::Rc;

use gimli::{AttributeValue, DebugInfoOffset, Unit, UnitOffset, UnitRef};

use super::{DebugInfo, Reader, Target, unit_offsets};

/// Longest believable chain of abstract origins and specifications.
const HOPS: usize = 16;
/// Parsed units kept for names; each is some kilobytes.
const UNIT_LIMIT: usize = 1024;

/// The names of one unit's entries.
pub(super) struct Names<'a, 'data> {
    info: &'a DebugInfo<'data>,
    home: UnitRef<'a, Reader<'data>>,
    /// Whether `home` is in a file of its own: what it refers to is all in there.
    split: bool,
    /// Other units that entries refer to; `true` for those of the shared file.
    units: HashMap<(bool, usize), Option<Rc<Unit<Reader<'data>>>>>,
    known: HashMap<UnitOffset, Option<String>>,
}

/// Name of a class without one.
const LAMBDA: &str = "{lambda}";

/// Where an entry is.
enum Place<'data> {
    Home(UnitOffset),
    Other {
        alt: bool,
        unit: Rc<Unit<Reader<'data>>>,
        offset: UnitOffset,
    },
}

impl<'a, 'data> Names<'a, 'data> {
    pub(super) fn new(
        info: &'a DebugInfo<'data>,
        home: UnitRef<'a, Reader<'data>>,
        split: bool,
    ) -> Self {
        Self {
            info,
            home,
            split,
            units: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// Name of the function at `offset` of the home unit.
    pub(super) fn of(&mut self, offset: UnitOffset) -> Option<String> {
        if let Some(known) = self.known.get(&offset) {
            return known.clone();
        }
        let name = self.search(Place::Home(offset)).ok().flatten();
        self.known.insert(offset, name.clone());
        name
    }

    /// What a call site refers to: the start of a function that is in this file, else its name.
    pub(super) fn target(&mut self, reference: AttributeValue<Reader<'data>>) -> Option<Target> {
        let place = self.follow(&Place::Home(UnitOffset(0)), reference)?;
        if !matches!(place, Place::Other { alt: true, .. }) {
            let (unit, offset) = self.resolve(&place)?;
            let start = unit.entry(offset).ok()?.attr_value(gimli::DW_AT_low_pc);
            if let Some(start) = start.and_then(|start| unit.attr_address(start).ok().flatten()) {
                return Some(Target::Address(start));
            }
        }
        let name = match place {
            Place::Home(offset) => self.of(offset),
            other => self.search(other).ok().flatten(),
        };
        name.map(Target::Name)
    }

    fn search(&mut self, mut place: Place<'data>) -> gimli::Result<Option<String>> {
        let mut plain = None;
        for _ in 0..HOPS {
            let (name, next) = {
                let Some((unit, offset)) = self.resolve(&place) else {
                    break;
                };
                let entry = unit.entry(offset)?;
                for linkage in [gimli::DW_AT_linkage_name, gimli::DW_AT_MIPS_linkage_name] {
                    if let Some(value) = entry.attr_value(linkage)
                        && let Ok(name) = unit.attr_string(value)
                    {
                        return Ok(Some(name.to_string_lossy().into_owned()));
                    }
                }
                // The most abstract entry is the one inside the class or the namespace.
                let name = entry
                    .attr_value(gimli::DW_AT_name)
                    .and_then(|value| unit.attr_string(value).ok())
                    .map(|name| qualified(unit, offset, name.to_string_lossy().into_owned()));
                let next = entry
                    .attr_value(gimli::DW_AT_abstract_origin)
                    .or_else(|| entry.attr_value(gimli::DW_AT_specification));
                (name, next)
            };
            plain = name.or(plain);
            let Some(next) = next.and_then(|next| self.follow(&place, next)) else {
                break;
            };
            place = next;
        }
        Ok(plain)
    }

    fn resolve<'s>(
        &'s self,
        place: &'s Place<'data>,
    ) -> Option<(UnitRef<'s, Reader<'data>>, UnitOffset)> {
        match place {
            Place::Home(offset) => Some((UnitRef::new(self.home.dwarf, self.home.unit), *offset)),
            Place::Other { alt, unit, offset } => {
                Some((UnitRef::new(self.dwarf(*alt)?, unit), *offset))
            }
        }
    }

    fn dwarf(&self, alt: bool) -> Option<&gimli::Dwarf<Reader<'data>>> {
        if alt {
            self.info.dwarf.sup()
        } else {
            Some(&self.info.dwarf)
        }
    }

    fn follow(
        &mut self,
        from: &Place<'data>,
        reference: AttributeValue<Reader<'data>>,
    ) -> Option<Place<'data>> {
        match (reference, from) {
            (AttributeValue::UnitRef(offset), Place::Home(_)) => Some(Place::Home(offset)),
            (AttributeValue::UnitRef(offset), Place::Other { alt, unit, .. }) => {
                Some(Place::Other {
                    alt: *alt,
                    unit: unit.clone(),
                    offset,
                })
            }
            (AttributeValue::DebugInfoRef(offset), from) => {
                let alt = matches!(from, Place::Other { alt: true, .. });
                self.other(alt, offset)
            }
            (AttributeValue::DebugInfoRefSup(offset), _) => self.other(true, offset),
            _ => None,
        }
        .filter(|place| !self.split || matches!(place, Place::Home(_)))
    }

    fn other(&mut self, alt: bool, offset: DebugInfoOffset) -> Option<Place<'data>> {
        let units = if alt {
            let dwarf = self.info.dwarf.sup()?;
            self.info.alt_units.get_or_init(|| unit_offsets(dwarf))
        } else {
            self.info.reach(offset.0);
            self.info.units()
        };
        let next = units.partition_point(|unit| *unit <= offset.0);
        let start = *units.get(next.checked_sub(1)?)?;
        if self.units.len() >= UNIT_LIMIT {
            self.units.clear();
        }
        let dwarf = if alt {
            self.info.dwarf.sup()?
        } else {
            &self.info.dwarf
        };
        let parse = || {
            let header = dwarf.unit_header(DebugInfoOffset(start)).ok()?;
            dwarf.unit(header).ok().map(Rc::new)
        };
        let unit = self
            .units
            .entry((alt, start))
            .or_insert_with(parse)
            .clone()?;
        Some(Place::Other {
            alt,
            unit,
            offset: UnitOffset(offset.0.checked_sub(start)?),
        })
    }
}

/// The name with its namespaces and classes, for C++ functions that have no linkage name.
/// A class without a name is that of a lambda: `{lambda}::operator()`.
fn qualified(unit: UnitRef<'_, Reader<'_>>, offset: UnitOffset, name: String) -> String {
    if !has_scopes(unit) {
        return name;
    }
    match scopes(unit, offset) {
        Ok(mut scopes) if !scopes.is_empty() => {
            // The classes around a lambda's class are lambdas too, and add nothing.
            scopes.dedup_by(|inner, outer| inner == LAMBDA && outer == LAMBDA);
            format!("{}::{name}", scopes.join("::"))
        }
        _ => name,
    }
}

/// Whether the unit's language has namespaces; walking a C unit for them would be in vain.
fn has_scopes(unit: UnitRef<'_, Reader<'_>>) -> bool {
    !matches!(
        language(unit),
        Some(
            gimli::DW_LANG_C
                | gimli::DW_LANG_C89
                | gimli::DW_LANG_C99
                | gimli::DW_LANG_C11
                | gimli::DW_LANG_C17
                | gimli::DW_LANG_Go
        )
    )
}

/// The language that the unit's root entry names.
pub(super) fn language(unit: UnitRef<'_, Reader<'_>>) -> Option<gimli::DwLang> {
    let root = unit.entry(unit.header.root_offset()).ok()?;
    match root.attr_value(gimli::DW_AT_language)? {
        AttributeValue::Language(language) => Some(language),
        _ => None,
    }
}

fn scopes(unit: UnitRef<'_, Reader<'_>>, offset: UnitOffset) -> gimli::Result<Vec<String>> {
    let mut entries = unit.entries_raw(None)?;
    let mut scopes: Vec<(isize, String)> = Vec::new();
    while !entries.is_empty() && entries.next_offset() < offset {
        let depth = entries.next_depth();
        let Some(abbreviation) = entries.read_abbreviation()? else {
            continue;
        };
        while scopes.last().is_some_and(|scope| scope.0 >= depth) {
            scopes.pop();
        }
        match abbreviation.tag() {
            gimli::DW_TAG_namespace
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_union_type => {
                let mut name = match abbreviation.tag() {
                    gimli::DW_TAG_namespace => "(anonymous namespace)".to_owned(),
                    _ => LAMBDA.to_owned(),
                };
                for specification in abbreviation.attributes() {
                    let attribute = entries.read_attribute(*specification)?;
                    if attribute.name() == gimli::DW_AT_name {
                        name = unit
                            .attr_string(attribute.value())?
                            .to_string_lossy()
                            .into_owned();
                    }
                }
                scopes.push((depth, name));
            }
            _ => entries.skip_attributes(abbreviation.attributes())?,
        }
    }
    let depth = entries.next_depth();
    Ok(scopes
        .into_iter()
        .filter(|scope| scope.0 < depth)
        .map(|scope| scope.1)
        .collect())
}
