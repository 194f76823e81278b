//! Types, as far as values of them can be read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use gimli::{AttributeValue, DwAte, DwTag};

use crate::dwarf::{Die, DieId};

/// Members, enumerators or dimensions of one type.
const CHILDREN: usize = 1 << 14;
/// Typedefs and qualifiers in a row, and pointers in a name.
const CHAIN: usize = 64;
/// Types that are remembered.
const TYPES: usize = 1 << 18;

/// The language that a type is written in, as far as its values look different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Cpp,
    Rust,
    Go,
}

/// A type.
pub(crate) struct Type<'data> {
    pub(crate) die: Die<'data>,
    pub(crate) name: Option<String>,
    pub(crate) size: Option<u64>,
    pub(crate) language: Language,
    pub(crate) kind: Kind<'data>,
}

/// What a type is.
pub(crate) enum Kind<'data> {
    Base(DwAte),
    /// `None` points to anything (`void *`).
    Pointer(Option<Die<'data>>),
    Reference(Option<Die<'data>>),
    MemberPointer,
    /// Struct, class or union.
    Record(Record<'data>),
    Enum(Vec<(String, i128)>),
    Array {
        element: Option<Die<'data>>,
        /// Elements of each dimension.
        dimensions: Vec<Count<'data>>,
    },
    Function,
    /// Typedef, `const`, `volatile` and the like.
    Alias(Option<Die<'data>>),
    /// Only declared.
    Incomplete,
    /// Nothing that has values: `void`, `nullptr_t`.
    Other,
}

/// How many elements a dimension of an array has.
pub(crate) enum Count<'data> {
    Known(u64),
    /// The frame's registers and memory say it, as this entry describes.
    Dynamic(Die<'data>),
    Unknown,
}

/// What a struct, class or union consists of.
#[derive(Default)]
pub(crate) struct Record<'data> {
    pub(crate) members: Vec<MemberType<'data>>,
    pub(crate) is_union: bool,
    /// Rust: the value decides which members there are.
    pub(crate) variants: Option<Variants<'data>>,
    /// Types of template parameters, by name.
    pub(crate) parameters: Vec<(String, Die<'data>)>,
}

/// The variants of a Rust enum.
pub(crate) struct Variants<'data> {
    pub(crate) discriminant: Option<MemberType<'data>>,
    pub(crate) variants: Vec<Variant<'data>>,
}

/// One variant of a Rust enum.
pub(crate) struct Variant<'data> {
    /// `None` for the one that all other values mean.
    pub(crate) values: Option<Vec<(i128, i128)>>,
    pub(crate) member: MemberType<'data>,
}

/// A member.
#[derive(Clone)]
pub(crate) struct MemberType<'data> {
    pub(crate) name: Option<String>,
    pub(crate) die: Die<'data>,
    pub(crate) of: Option<Die<'data>>,
    pub(crate) is_base: bool,
    pub(crate) is_static: bool,
    /// In bytes; `None` if an expression computes it.
    pub(crate) offset: Option<u64>,
    /// Of a bit-field: its first bit from the start of the object, and how many it has.
    pub(crate) bits: Option<(u64, u64)>,
}

/// By offset in the unit: the namespace or type that a type is in.
type OuterNames = HashMap<usize, Rc<str>>;

/// Types that were read.
#[derive(Default)]
pub(crate) struct Types<'data> {
    known: RefCell<HashMap<DieId, Rc<Type<'data>>>>,
    /// By unit: the namespaces and types that types are in.
    outer: RefCell<HashMap<DieId, Rc<OuterNames>>>,
}

/// Names of what contains a type, all together.
const OUTER_NAME: usize = 4096;
/// Types of one unit whose namespaces are known.
const OUTER_TYPES: usize = 1 << 20;

/// For each type of a unit that is in a namespace or in another type, the name of that.
fn outer_names(unit: &crate::dwarf::Unit<'_>) -> gimli::Result<OuterNames> {
    let mut names = HashMap::new();
    let reference = unit.reference();
    let mut cursor = unit.unit.entries();
    // Depth and name of what contains the next entry.
    let mut open: Vec<(isize, Rc<str>)> = Vec::new();
    while let Some(entry) = cursor.next_dfs()? {
        let depth = entry.depth();
        while open.last().is_some_and(|(outer, _)| *outer >= depth) {
            open.pop();
        }
        let contains = match entry.tag() {
            gimli::DW_TAG_namespace
            | gimli::DW_TAG_module
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_union_type => true,
            gimli::DW_TAG_enumeration_type
            | gimli::DW_TAG_typedef
            | gimli::DW_TAG_template_alias => false,
            _ => continue,
        };
        let outer = open.last().map(|(_, name)| Rc::clone(name));
        if let Some(outer) = &outer
            && names.len() < OUTER_TYPES
        {
            names.insert(entry.offset().0, Rc::clone(outer));
        }
        if !contains || !entry.has_children() {
            continue;
        }
        let name = entry.attr_value(gimli::DW_AT_name);
        let name = name.and_then(|name| reference.attr_string(name).ok());
        let name = match &name {
            Some(name) => String::from_utf8_lossy(name.slice()),
            None if entry.tag() == gimli::DW_TAG_namespace => "(anonymous namespace)".into(),
            None => continue,
        };
        let full = match outer {
            Some(outer) if outer.len() < OUTER_NAME => format!("{outer}::{name}"),
            _ => name.into_owned(),
        };
        open.push((depth, full.into()));
    }
    Ok(names)
}

impl<'data> Types<'data> {
    pub(crate) fn get(&self, die: &Die<'data>) -> Rc<Type<'data>> {
        let id = die.id();
        if let Some(known) = self.known.borrow().get(&id) {
            return Rc::clone(known);
        }
        let made = Rc::new(read(die));
        let mut known = self.known.borrow_mut();
        if known.len() < TYPES {
            known.insert(id, Rc::clone(&made));
        }
        made
    }

    /// The name with its namespaces.
    pub(crate) fn qualified(&self, of: &Type<'data>) -> Option<String> {
        let name = of.name.clone()?;
        if matches!(of.language, Language::C | Language::Go) || matches!(of.kind, Kind::Base(_)) {
            return Some(name);
        }
        let die = &of.die;
        let root = die
            .module
            .die(&die.unit, die.unit.unit.header.root_offset())?;
        let known = self.outer.borrow().get(&root.id()).cloned();
        let names = known.unwrap_or_else(|| {
            let names = Rc::new(outer_names(&die.unit).unwrap_or_default());
            let mut outer = self.outer.borrow_mut();
            outer.insert(root.id(), Rc::clone(&names));
            names
        });
        // A type unit declares the type in its namespace and defines it elsewhere.
        let declared = die.follow(gimli::DW_AT_specification);
        let declared = declared.map_or(die.entry.offset().0, |declared| declared.entry.offset().0);
        Some(match names.get(&declared) {
            // Names of tuples, references and the like have no namespace.
            Some(outer) => format!("{outer}::{name}"),
            None => name,
        })
    }

    /// The type without typedefs and qualifiers.
    pub(crate) fn plain(&self, die: &Die<'data>) -> Option<Rc<Type<'data>>> {
        let mut found = self.get(die);
        for _ in 0..CHAIN {
            let Kind::Alias(target) = &found.kind else {
                return Some(found);
            };
            let target = target.clone()?;
            found = self.get(&target);
        }
        None
    }

    /// The name of a typedef for wide characters that the type is.
    pub(crate) fn alias_of_characters(&self, die: &Die<'data>) -> Option<&'static str> {
        let mut found = self.get(die);
        for _ in 0..CHAIN {
            let Kind::Alias(target) = &found.kind else {
                return None;
            };
            let names = ["wchar_t", "char16_t", "char32_t"];
            let known = names
                .into_iter()
                .find(|name| found.name.as_deref() == Some(name));
            if known.is_some() && found.language == Language::C {
                return known;
            }
            let target = target.clone()?;
            found = self.get(&target);
        }
        None
    }

    /// Bytes of a value of the type.
    pub(crate) fn size(&self, die: &Die<'data>) -> Option<u64> {
        self.size_within(die, 0)
    }

    fn size_within(&self, die: &Die<'data>, depth: usize) -> Option<u64> {
        if depth > CHAIN {
            return None;
        }
        let depth = depth.saturating_add(1);
        let own = self.get(die);
        if own.size.is_some() {
            return own.size;
        }
        match &own.kind {
            Kind::Alias(target) => self.size_within(target.as_ref()?, depth),
            Kind::Pointer(_) | Kind::Reference(_) => Some(8),
            // To a function: also how to change `this`.
            Kind::MemberPointer => {
                let target = own.die.type_die()?;
                let is_function = matches!(self.plain(&target)?.kind, Kind::Function);
                Some(if is_function { 16 } else { 8 })
            }
            Kind::Array {
                element,
                dimensions,
            } => {
                let mut size = self.size_within(element.as_ref()?, depth)?;
                for dimension in dimensions {
                    let Count::Known(count) = dimension else {
                        return None;
                    };
                    size = size.checked_mul(*count)?;
                }
                Some(size)
            }
            _ => None,
        }
    }

    /// The name as source code has it: `const char *`.
    pub(crate) fn name(&self, die: Option<&Die<'data>>) -> String {
        self.name_within(die, 0)
    }

    fn name_within(&self, die: Option<&Die<'data>>, depth: usize) -> String {
        let Some(die) = die.filter(|_| depth < CHAIN) else {
            return "void".to_owned();
        };
        let depth = depth.saturating_add(1);
        let own = self.get(die);
        let pointer = |target: &Option<Die<'data>>, mark: &str| {
            let is_function = target
                .as_ref()
                .is_some_and(|target| matches!(self.get(target).kind, Kind::Function));
            let name = self.name_within(target.as_ref(), depth);
            if is_function {
                return name.replacen(" (", &format!(" ({mark})("), 1);
            }
            let space = if name.ends_with(['*', '&']) { "" } else { " " };
            format!("{name}{space}{mark}")
        };
        match &own.kind {
            Kind::Pointer(target) => match &own.name {
                Some(name) => name.clone(),
                None => pointer(target, "*"),
            },
            Kind::Reference(target) => {
                let is_rvalue = die.tag() == gimli::DW_TAG_rvalue_reference_type;
                pointer(target, if is_rvalue { "&&" } else { "&" })
            }
            Kind::Alias(target) if die.tag() != gimli::DW_TAG_typedef => {
                let name = self.name_within(target.as_ref(), depth);
                let word = match die.tag() {
                    gimli::DW_TAG_const_type => "const",
                    gimli::DW_TAG_volatile_type => "volatile",
                    gimli::DW_TAG_restrict_type => "restrict",
                    gimli::DW_TAG_atomic_type => "_Atomic",
                    _ => return name,
                };
                match name.ends_with('*') {
                    true => format!("{name} {word}"),
                    false => format!("{word} {name}"),
                }
            }
            Kind::Array {
                element,
                dimensions,
            } => {
                let name = self.name_within(element.as_ref(), depth);
                let sizes = dimensions.iter().map(|size| match size {
                    Count::Known(size) => format!("[{size}]"),
                    _ => "[]".to_owned(),
                });
                let sizes: String = sizes.collect();
                format!("{name} {sizes}")
            }
            Kind::Function => {
                let returned = self.name_within(die.type_die().as_ref(), depth);
                let parameters = die.children(64).into_iter().filter_map(|child| {
                    (child.tag() == gimli::DW_TAG_formal_parameter)
                        .then(|| self.name_within(child.type_die().as_ref(), depth))
                });
                let parameters: Vec<String> = parameters.collect();
                format!("{returned} ({})", parameters.join(", "))
            }
            Kind::Record(record) if own.language == Language::C => {
                let word = if record.is_union { "union" } else { "struct" };
                let name = own.name.as_deref().unwrap_or("{...}");
                format!("{word} {name}")
            }
            Kind::Enum(_) if own.language == Language::C => {
                format!("enum {}", own.name.as_deref().unwrap_or("{...}"))
            }
            Kind::Incomplete if own.language == Language::C => {
                format!("struct {}", own.name.as_deref().unwrap_or("{...}"))
            }
            _ => self.qualified(&own).unwrap_or_else(|| "{...}".to_owned()),
        }
    }
}

fn language(die: &Die<'_>) -> Language {
    match die.unit.language() {
        Some(gimli::DW_LANG_Rust | gimli::DW_LANG_Mips_Assembler) => Language::Rust,
        Some(gimli::DW_LANG_Go) => Language::Go,
        Some(
            gimli::DW_LANG_C_plus_plus
            | gimli::DW_LANG_C_plus_plus_03
            | gimli::DW_LANG_C_plus_plus_11
            | gimli::DW_LANG_C_plus_plus_14
            | gimli::DW_LANG_C_plus_plus_17
            | gimli::DW_LANG_C_plus_plus_20,
        ) => Language::Cpp,
        _ => Language::C,
    }
}

fn read<'data>(die: &Die<'data>) -> Type<'data> {
    let mut die = die.clone();
    // Where the definition has a type unit of its own.
    if let Some(definition) = die.follow(gimli::DW_AT_signature) {
        die = definition;
    }
    let target = || die.type_die();
    let is_declaration = die.flag(gimli::DW_AT_declaration);
    let kind = match die.tag() {
        gimli::DW_TAG_base_type => match die.attr(gimli::DW_AT_encoding) {
            Some(AttributeValue::Encoding(encoding)) => Kind::Base(encoding),
            _ => Kind::Other,
        },
        gimli::DW_TAG_pointer_type => Kind::Pointer(target()),
        gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type => {
            Kind::Reference(target())
        }
        gimli::DW_TAG_ptr_to_member_type => Kind::MemberPointer,
        gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type | gimli::DW_TAG_union_type
            if is_declaration =>
        {
            Kind::Incomplete
        }
        gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type | gimli::DW_TAG_union_type => {
            Kind::Record(record(&die))
        }
        gimli::DW_TAG_enumeration_type if is_declaration => Kind::Incomplete,
        gimli::DW_TAG_enumeration_type => Kind::Enum(enumerators(&die)),
        gimli::DW_TAG_array_type => array(&die),
        gimli::DW_TAG_subroutine_type => Kind::Function,
        gimli::DW_TAG_typedef
        | gimli::DW_TAG_const_type
        | gimli::DW_TAG_volatile_type
        | gimli::DW_TAG_restrict_type
        | gimli::DW_TAG_atomic_type
        | gimli::DW_TAG_immutable_type
        | gimli::DW_TAG_template_alias => Kind::Alias(target()),
        // C++ uses it for `nullptr_t`, C for nothing.
        _ => Kind::Other,
    };
    Type {
        name: die.name(),
        size: die.udata(gimli::DW_AT_byte_size),
        language: language(&die),
        kind,
        die,
    }
}

fn record<'data>(die: &Die<'data>) -> Record<'data> {
    let mut record = Record {
        is_union: die.tag() == gimli::DW_TAG_union_type,
        ..Record::default()
    };
    for child in die.children(CHILDREN) {
        match child.tag() {
            gimli::DW_TAG_member | gimli::DW_TAG_inheritance => record.members.push(member(child)),
            // A static member of DWARF 5.
            gimli::DW_TAG_variable => record.members.push(MemberType {
                is_static: true,
                ..member(child)
            }),
            gimli::DW_TAG_variant_part => record.variants = Some(variants(&child)),
            gimli::DW_TAG_template_type_parameter => {
                if let (Some(name), Some(of)) = (child.name(), child.type_die()) {
                    record.parameters.push((name, of));
                }
            }
            _ => {}
        }
    }
    record
}

fn member(die: Die<'_>) -> MemberType<'_> {
    let size = die.udata(gimli::DW_AT_bit_size);
    let has_location = die.entry.has_attr(gimli::DW_AT_data_member_location);
    let offset = match has_location {
        true => die.udata(gimli::DW_AT_data_member_location),
        false => Some(0),
    };
    let bits = size.and_then(|size| {
        if let Some(first) = die.udata(gimli::DW_AT_data_bit_offset) {
            return Some((first, size));
        }
        // DWARF 2 and 3 count from the other end of the storage unit.
        let from_top = die.sdata(gimli::DW_AT_bit_offset)?;
        let own = die.udata(gimli::DW_AT_byte_size);
        let unit = own.or_else(|| die.type_die()?.udata(gimli::DW_AT_byte_size))?;
        let bottom = i64::try_from(unit.checked_mul(8)?)
            .ok()?
            .checked_sub(from_top)?
            .checked_sub(i64::try_from(size).ok()?)?;
        let start = i64::try_from(offset?.checked_mul(8)?).ok()?;
        Some((u64::try_from(start.checked_add(bottom)?).ok()?, size))
    });
    MemberType {
        name: die.name(),
        of: die.type_die(),
        is_base: die.tag() == gimli::DW_TAG_inheritance,
        is_static: die.flag(gimli::DW_AT_external) && die.flag(gimli::DW_AT_declaration),
        offset,
        bits,
        die,
    }
}

fn variants<'data>(part: &Die<'data>) -> Variants<'data> {
    let mut variants = Vec::new();
    for child in part.children(CHILDREN) {
        if child.tag() != gimli::DW_TAG_variant {
            continue;
        }
        let inside = child.children(CHILDREN);
        let found = inside
            .into_iter()
            .find(|die| die.tag() == gimli::DW_TAG_member);
        let Some(found) = found else { continue };
        variants.push(Variant {
            values: discriminant_values(&child),
            member: member(found),
        });
    }
    Variants {
        discriminant: part.follow(gimli::DW_AT_discr).map(member),
        variants,
    }
}

fn discriminant_values(variant: &Die<'_>) -> Option<Vec<(i128, i128)>> {
    if let Some(value) = number(variant, gimli::DW_AT_discr_value) {
        return Some(vec![(value, value)]);
    }
    let Some(AttributeValue::Block(list)) = variant.attr(gimli::DW_AT_discr_list) else {
        return None;
    };
    let mut values = Vec::new();
    let mut list = list;
    while let Ok(kind) = gimli::Reader::read_u8(&mut list) {
        let mut next = || gimli::Reader::read_uleb128(&mut list).ok().map(i128::from);
        let first = next()?;
        let last = if kind == 0 { first } else { next()? };
        values.push((first, last));
    }
    Some(values)
}

/// A constant; small forms have no sign.
fn number(die: &Die<'_>, name: gimli::DwAt) -> Option<i128> {
    let attribute = die.entry.attr(name)?;
    Some(match attribute.value() {
        AttributeValue::Sdata(value) => value.into(),
        AttributeValue::Data16(value) => value as i128,
        AttributeValue::Block(block) => {
            let mut bytes = [0; 16];
            for (byte, from) in bytes.iter_mut().zip(block.slice()) {
                *byte = *from;
            }
            i128::from_le_bytes(bytes)
        }
        _ => attribute.udata_value()?.into(),
    })
}

fn enumerators(die: &Die<'_>) -> Vec<(String, i128)> {
    let children = die.children(CHILDREN).into_iter();
    children
        .filter(|child| child.tag() == gimli::DW_TAG_enumerator)
        .filter_map(|child| Some((child.name()?, number(&child, gimli::DW_AT_const_value)?)))
        .collect()
}

fn array<'data>(die: &Die<'data>) -> Kind<'data> {
    let is_dimension =
        |tag: DwTag| tag == gimli::DW_TAG_subrange_type || tag == gimli::DW_TAG_enumeration_type;
    let dimension = |child: Die<'data>| {
        if let Some(count) = child.udata(gimli::DW_AT_count) {
            return Count::Known(count);
        }
        let low = child.sdata(gimli::DW_AT_lower_bound).unwrap_or(0);
        let high = match child.attr(gimli::DW_AT_upper_bound) {
            Some(AttributeValue::Sdata(high)) => Some(high),
            // -1, of an array without elements.
            Some(_) if child.udata(gimli::DW_AT_upper_bound) == Some(u64::MAX) => Some(-1),
            Some(_) => child
                .udata(gimli::DW_AT_upper_bound)
                .and_then(|high| i64::try_from(high).ok()),
            None => None,
        };
        let count = high.and_then(|high| high.checked_sub(low)?.checked_add(1));
        let is_dynamic = child.entry.has_attr(gimli::DW_AT_upper_bound)
            || child.entry.has_attr(gimli::DW_AT_count);
        match count {
            Some(count) => Count::Known(u64::try_from(count).unwrap_or(0)),
            None if is_dynamic => Count::Dynamic(child),
            None => Count::Unknown,
        }
    };
    let children = die.children(CHILDREN).into_iter();
    let dimensions = children
        .filter(|child| is_dimension(child.tag()))
        .map(dimension)
        .collect();
    Kind::Array {
        element: die.type_die(),
        dimensions,
    }
}
