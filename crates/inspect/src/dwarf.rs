//! Entries of debug information, wherever they are: in the module's file, in the file it shares with others (dwz),
//! in split units and in type units.
//!
//! References between entries are followed here; every chain is bounded.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use cdh_symbolize::{ModuleDwarf, Reader};
use gimli::{
    AttributeValue, DebugInfoOffset, DebugTypeSignature, DebuggingInformationEntry, DwAt,
    UnitHeader, UnitOffset, UnitRef, UnitType,
};

/// Longest chain of abstract origins and specifications.
const CHAIN: usize = 8;
/// Split units of a module that are opened.
const SPLITS: usize = 4096;

type Dwarf<'data> = gimli::Dwarf<Reader<'data>>;

/// The debug information of one module, with everything it refers to.
pub(crate) struct Module<'data> {
    pub(crate) index: usize,
    pub(crate) bias: u64,
    main: Rc<Space<'data>>,
    sup: Option<Rc<Space<'data>>>,
    file: Rc<ModuleDwarf<'data>>,
    /// Split units by the offset of their skeletons.
    splits: RefCell<HashMap<usize, Option<Rc<Unit<'data>>>>>,
    /// Type units of a package by signature.
    packaged: RefCell<HashMap<u64, Option<Rc<Unit<'data>>>>>,
    opened: Cell<usize>,
}

/// The units of one space that were read: in `.debug_types` or not, and their offsets.
type Units<'data> = HashMap<(bool, usize), Option<Rc<Unit<'data>>>>;

/// Sections that refer to one another by offsets.
pub(crate) struct Space<'data> {
    sections: Sections<'data>,
    /// Start and end of each unit in `.debug_info`.
    starts: Vec<(usize, usize)>,
    units: RefCell<Units<'data>>,
    /// Where type units are: in `.debug_types` or not, and their offsets.
    signatures: RefCell<Option<HashMap<u64, (bool, usize)>>>,
    /// Numbers its entries apart from those of other spaces of the process.
    number: usize,
}

enum Sections<'data> {
    Main(Rc<ModuleDwarf<'data>>),
    Sup(Rc<ModuleDwarf<'data>>),
    Split(Box<Dwarf<'data>>),
}

/// A unit, and where its entries' references lead.
pub(crate) struct Unit<'data> {
    pub(crate) unit: gimli::Unit<Reader<'data>>,
    pub(crate) space: Rc<Space<'data>>,
    is_types: bool,
    start: usize,
    is_of_gcc: OnceCell<bool>,
}

/// Identity of an entry in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DieId {
    module: usize,
    space: usize,
    is_types: bool,
    offset: usize,
}

/// An entry.
#[derive(Clone)]
pub(crate) struct Die<'data> {
    pub(crate) module: Rc<Module<'data>>,
    pub(crate) unit: Rc<Unit<'data>>,
    pub(crate) entry: DebuggingInformationEntry<Reader<'data>>,
}

impl<'data> Module<'data> {
    pub(crate) fn new(index: usize, bias: u64, file: ModuleDwarf<'data>) -> Self {
        let file = Rc::new(file);
        let sup = file.sections().sup().is_some();
        let sup = sup.then(|| Rc::new(Space::new(Sections::Sup(Rc::clone(&file)), 1)));
        Self {
            index,
            bias,
            main: Rc::new(Space::new(Sections::Main(Rc::clone(&file)), 0)),
            sup,
            file,
            splits: RefCell::default(),
            packaged: RefCell::default(),
            opened: Cell::new(0),
        }
    }

    /// The unit that an address is in: its entries, and the unit that has its lines and addresses.
    pub(crate) fn unit_at(self: &Rc<Self>, at: u64) -> Option<Rc<Unit<'data>>> {
        let start = self.file.unit_at(at)?;
        let unit = self.main.unit(false, start)?;
        if unit.unit.dwo_id.is_none() {
            return Some(unit);
        }
        let known = self.splits.borrow().get(&start).cloned();
        if let Some(known) = known {
            return known.or(Some(unit));
        }
        let Some(number) = self.number_of_split() else {
            return Some(unit);
        };
        let skeleton = UnitRef::new(self.main.dwarf(), &unit.unit);
        let split = self.file.split(skeleton).map(|(dwarf, split)| {
            let space = Rc::new(Space::new(Sections::Split(Box::new(dwarf)), number));
            let start = split.header.debug_info_offset().map_or(0, |at| at.0);
            Rc::new(Unit {
                unit: split,
                space,
                is_types: false,
                start,
                is_of_gcc: OnceCell::new(),
            })
        });
        if let Some(split) = &split {
            // References inside it find it with the addresses that only the skeleton knows.
            let mut units = split.space.units.borrow_mut();
            units.insert((false, split.start), Some(Rc::clone(split)));
        }
        self.splits.borrow_mut().insert(start, split.clone());
        split.or(Some(unit))
    }

    pub(crate) fn die(
        self: &Rc<Self>,
        unit: &Rc<Unit<'data>>,
        offset: UnitOffset,
    ) -> Option<Die<'data>> {
        Some(Die {
            module: Rc::clone(self),
            unit: Rc::clone(unit),
            entry: unit.unit.entry(offset).ok()?,
        })
    }

    /// The entry at an offset in a `.debug_info`.
    pub(crate) fn die_at(
        self: &Rc<Self>,
        space: &Rc<Space<'data>>,
        offset: DebugInfoOffset,
    ) -> Option<Die<'data>> {
        let unit = space.unit_with(offset.0)?;
        let inside = offset.0.checked_sub(unit.start)?;
        self.die(&unit, UnitOffset(inside))
    }

    fn type_unit(
        self: &Rc<Self>,
        space: &Rc<Space<'data>>,
        signature: DebugTypeSignature,
    ) -> Option<Die<'data>> {
        let unit = match space.type_unit(signature) {
            Some(unit) => unit,
            None => self.packaged_type(signature)?,
        };
        let offset = match unit.unit.header.type_() {
            UnitType::Type { type_offset, .. } | UnitType::SplitType { type_offset, .. } => {
                type_offset
            }
            _ => return None,
        };
        self.die(&unit, offset)
    }
}

impl<'data> Module<'data> {
    /// A package of split units has its type units apart.
    fn packaged_type(&self, signature: DebugTypeSignature) -> Option<Rc<Unit<'data>>> {
        if let Some(known) = self.packaged.borrow().get(&signature.0) {
            return known.clone();
        }
        let open = || {
            let number = self.number_of_split()?;
            let dwarf = self.file.packaged_type(signature)?;
            let space = Rc::new(Space::new(Sections::Split(Box::new(dwarf)), number));
            space.type_unit(signature)
        };
        let found = open();
        self.packaged
            .borrow_mut()
            .insert(signature.0, found.clone());
        found
    }

    fn number_of_split(&self) -> Option<usize> {
        let number = self.opened.get().checked_add(1)?;
        self.opened.set(number);
        // 0 is the file, 1 the one that it shares with others.
        number.checked_add(1).filter(|_| number <= SPLITS)
    }
}

impl<'data> Space<'data> {
    fn new(sections: Sections<'data>, number: usize) -> Self {
        let mut space = Self {
            sections,
            starts: Vec::new(),
            units: RefCell::default(),
            signatures: RefCell::default(),
            number,
        };
        let mut starts = Vec::new();
        let mut headers = space.dwarf().units();
        while let Ok(Some(header)) = headers.next() {
            if let Some(start) = header.debug_info_offset() {
                let end = start.0.saturating_add(header.length_including_self());
                starts.push((start.0, end));
            }
        }
        space.starts = starts;
        space
    }

    pub(crate) fn dwarf(&self) -> &Dwarf<'data> {
        match &self.sections {
            Sections::Main(file) => file.sections(),
            Sections::Sup(file) => file.sections().sup().unwrap_or(file.sections()),
            Sections::Split(dwarf) => dwarf,
        }
    }

    fn unit_with(self: &Rc<Self>, offset: usize) -> Option<Rc<Unit<'data>>> {
        let next = self.starts.partition_point(|(start, _)| *start <= offset);
        let (start, end) = self.starts.get(next.checked_sub(1)?)?;
        self.unit(false, *start).filter(|_| offset < *end)
    }

    fn unit(self: &Rc<Self>, is_types: bool, start: usize) -> Option<Rc<Unit<'data>>> {
        if let Some(known) = self.units.borrow().get(&(is_types, start)) {
            return known.clone();
        }
        let found = self.header(is_types, start).and_then(|header| {
            let unit = self.dwarf().unit(header).ok()?;
            Some(Rc::new(Unit {
                unit,
                space: Rc::clone(self),
                is_types,
                start,
                is_of_gcc: OnceCell::new(),
            }))
        });
        self.units
            .borrow_mut()
            .insert((is_types, start), found.clone());
        found
    }

    fn header(&self, is_types: bool, start: usize) -> Option<UnitHeader<Reader<'data>>> {
        if !is_types {
            return self.dwarf().unit_header(DebugInfoOffset(start)).ok();
        }
        let mut headers = self.dwarf().type_units();
        while let Ok(Some(header)) = headers.next() {
            if header.debug_types_offset().is_some_and(|at| at.0 == start) {
                return Some(header);
            }
        }
        None
    }

    fn type_unit(self: &Rc<Self>, signature: DebugTypeSignature) -> Option<Rc<Unit<'data>>> {
        if self.signatures.borrow().is_none() {
            let mut found = HashMap::new();
            let mut add = |header: &UnitHeader<Reader<'data>>, place: Option<(bool, usize)>| {
                if let UnitType::Type { type_signature, .. }
                | UnitType::SplitType { type_signature, .. } = header.type_()
                    && let Some(place) = place
                {
                    found.entry(type_signature.0).or_insert(place);
                }
            };
            let mut headers = self.dwarf().units();
            while let Ok(Some(header)) = headers.next() {
                add(&header, header.debug_info_offset().map(|at| (false, at.0)));
            }
            let mut headers = self.dwarf().type_units();
            while let Ok(Some(header)) = headers.next() {
                add(&header, header.debug_types_offset().map(|at| (true, at.0)));
            }
            *self.signatures.borrow_mut() = Some(found);
        }
        let place = self
            .signatures
            .borrow()
            .as_ref()
            .and_then(|known| known.get(&signature.0).copied());
        let (is_types, start) = place?;
        self.unit(is_types, start)
    }
}

impl<'data> Unit<'data> {
    pub(crate) fn reference(&self) -> UnitRef<'_, Reader<'data>> {
        UnitRef::new(self.space.dwarf(), &self.unit)
    }

    /// Whether GCC made the unit.
    pub(crate) fn is_of_gcc(&self) -> bool {
        *self.is_of_gcc.get_or_init(|| {
            let find = || {
                let root = self.unit.entry(self.unit.header.root_offset()).ok()?;
                let producer = root.attr_value(gimli::DW_AT_producer)?;
                self.reference().attr_string(producer).ok()
            };
            find().is_some_and(|producer| producer.slice().starts_with(b"GNU "))
        })
    }

    /// `DW_AT_language` of the unit.
    pub(crate) fn language(&self) -> Option<gimli::DwLang> {
        let root = self.unit.entry(self.unit.header.root_offset()).ok()?;
        match root.attr_value(gimli::DW_AT_language)? {
            AttributeValue::Language(language) => Some(language),
            _ => None,
        }
    }
}

impl<'data> Die<'data> {
    pub(crate) fn id(&self) -> DieId {
        let inside = self.entry.offset().0;
        DieId {
            module: self.module.index,
            space: self.unit.space.number,
            is_types: self.unit.is_types,
            offset: self.unit.start.saturating_add(inside),
        }
    }

    pub(crate) fn tag(&self) -> gimli::DwTag {
        self.entry.tag()
    }

    pub(crate) fn attr(&self, name: DwAt) -> Option<AttributeValue<Reader<'data>>> {
        self.entry.attr_value(name)
    }

    pub(crate) fn udata(&self, name: DwAt) -> Option<u64> {
        self.entry.attr(name)?.udata_value()
    }

    pub(crate) fn sdata(&self, name: DwAt) -> Option<i64> {
        self.entry.attr(name)?.sdata_value()
    }

    pub(crate) fn flag(&self, name: DwAt) -> bool {
        matches!(self.attr(name), Some(AttributeValue::Flag(true)))
    }

    pub(crate) fn text(&self, name: DwAt) -> Option<String> {
        let value = self.attr(name)?;
        let bytes = self.unit.reference().attr_string(value).ok()?;
        Some(String::from_utf8_lossy(bytes.slice()).into_owned())
    }

    /// The entry that an attribute refers to.
    pub(crate) fn follow(&self, name: DwAt) -> Option<Die<'data>> {
        let value = self.attr(name)?;
        self.resolve(value)
    }

    pub(crate) fn resolve(&self, value: AttributeValue<Reader<'data>>) -> Option<Die<'data>> {
        let module = &self.module;
        match value {
            AttributeValue::UnitRef(offset) => module.die(&self.unit, offset),
            AttributeValue::DebugInfoRef(offset) => module.die_at(&self.unit.space, offset),
            AttributeValue::DebugInfoRefSup(offset) => module.die_at(module.sup.as_ref()?, offset),
            AttributeValue::DebugTypesRef(signature) => {
                module.type_unit(&self.unit.space, signature)
            }
            _ => None,
        }
    }

    /// This entry and those that it completes: what they say holds for it too.
    pub(crate) fn chain(&self) -> Vec<Die<'data>> {
        let mut chain = vec![self.clone()];
        while chain.len() < CHAIN {
            let Some(last) = chain.last() else { break };
            let next = last
                .follow(gimli::DW_AT_abstract_origin)
                .or_else(|| last.follow(gimli::DW_AT_specification));
            match next {
                Some(next) => chain.push(next),
                None => break,
            }
        }
        chain
    }

    /// The name, perhaps that of the entry it completes.
    pub(crate) fn name(&self) -> Option<String> {
        self.chain()
            .iter()
            .find_map(|die| die.text(gimli::DW_AT_name))
    }

    pub(crate) fn linkage_name(&self) -> Option<String> {
        self.chain().iter().find_map(|die| {
            die.text(gimli::DW_AT_linkage_name)
                .or_else(|| die.text(gimli::DW_AT_MIPS_linkage_name))
        })
    }

    /// The type, perhaps that of the entry it completes.
    pub(crate) fn type_die(&self) -> Option<Die<'data>> {
        self.chain()
            .iter()
            .find_map(|die| die.follow(gimli::DW_AT_type))
    }

    /// Direct children, at most `limit`.
    pub(crate) fn children(&self, limit: usize) -> Vec<Die<'data>> {
        let mut children = Vec::new();
        if !self.entry.has_children() {
            return children;
        }
        // An error ends the list: what came before it is sound.
        let _ = self.each_child(limit, &mut children);
        children
    }

    fn each_child(&self, limit: usize, children: &mut Vec<Die<'data>>) -> gimli::Result<()> {
        let mut tree = self.unit.unit.entries_tree(Some(self.entry.offset()))?;
        let mut nodes = tree.root()?.children();
        while let Some(node) = nodes.next()?
            && children.len() < limit
        {
            children.push(Die {
                module: Rc::clone(&self.module),
                unit: Rc::clone(&self.unit),
                entry: node.entry().clone(),
            });
        }
        Ok(())
    }
}
