//! Reads values of types from where they are.
//!
//! What one variable may take is bounded: values, bytes, depth and time. Pointers are not followed, except to text and
//! into containers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use cdh_elfcore::Avma;
use gimli::{AttributeValue, DwAte};

use crate::dwarf::Die;
use crate::location::{Frame, Place};
use crate::types::{Count, Kind, Language, MemberType, Record as RecordType, Type, Types, Variant};
use crate::value::{Array, Member, MemberKind, Missing, Pointer, Record, Style, Text, Value};

/// Elements of an array and characters of a text that are shown, as gdb does.
pub(crate) const ELEMENTS: usize = 200;
/// Equal elements in a row that are shown as one.
pub(crate) const REPEATS: u64 = 10;
/// How deep aggregates nest.
pub(crate) const DEPTH: usize = 20;
/// Values of one variable.
const VALUES: u32 = 20_000;
/// Bytes of an array that are compared with its first elements.
const ARRAY: u64 = 1 << 20;
/// Functions of a class that are looked at.
const FUNCTIONS: usize = 1 << 12;

/// What reading needs.
pub(crate) struct ValueReader<'a, 'data> {
    pub(crate) types: &'a Types<'data>,
    pub(crate) frame: Frame<'a, 'data>,
    pub(crate) symbol: &'a dyn Fn(u64) -> Option<(String, u64)>,
    /// Where a variable is that has no address in the debug information: its symbol.
    pub(crate) address_of: &'a dyn Fn(&str) -> Option<u64>,
    /// Whether containers are shown by their elements.
    pub(crate) containers: bool,
    /// Whether only scalars are read.
    pub(crate) scalars: bool,
    pub(crate) left: Cell<u32>,
    pub(crate) until: Option<Instant>,
}

/// An object: its type and where it is.
#[derive(Clone)]
pub(crate) struct Object<'data> {
    pub(crate) of: Die<'data>,
    pub(crate) place: Place,
    pub(crate) at: u64,
}

impl<'a, 'data> ValueReader<'a, 'data> {
    pub(crate) fn new(
        types: &'a Types<'data>,
        frame: Frame<'a, 'data>,
        symbol: &'a dyn Fn(u64) -> Option<(String, u64)>,
        address_of: &'a dyn Fn(&str) -> Option<u64>,
        until: Option<Instant>,
    ) -> Self {
        Self {
            types,
            frame,
            symbol,
            address_of,
            containers: true,
            scalars: false,
            left: Cell::new(VALUES),
            until,
        }
    }

    /// Bytes of an object.
    pub(crate) fn bytes(&self, place: &Place, at: u64, size: usize) -> Result<Vec<u8>, Missing> {
        match place {
            Place::Memory(start) => {
                let from = start.wrapping_add(at);
                let mut bytes = vec![0; size];
                let read = self.frame.process.memory.read(Avma(from), &mut bytes);
                match read == size {
                    true => Ok(bytes),
                    false => Err(Missing::NotInTheCore(from.wrapping_add(read as u64))),
                }
            }
            Place::Bytes(pieces) => pieces.get(at, size),
            Place::Synthetic => Err(Missing::OptimizedOut),
            Place::Nowhere(why) => Err(*why),
        }
    }

    /// As many bytes as are known.
    pub(crate) fn some_bytes(&self, from: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let read = self.frame.process.memory.read(Avma(from), &mut bytes);
        bytes.truncate(read);
        bytes
    }

    fn out_of_room(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        let late = || self.until.is_some_and(|until| Instant::now() >= until);
        left == 0 || (left.is_multiple_of(64) && late())
    }

    /// The value of an object.
    pub(crate) fn value(&self, object: &Object<'data>, depth: usize) -> Value {
        if self.out_of_room() || depth > DEPTH {
            return Value::Omitted;
        }
        let Some(plain) = self.types.plain(&object.of) else {
            return Value::Word("void");
        };
        match self.try_value(object, &plain, depth) {
            Ok(value) => value,
            Err(why) => Value::Missing(why),
        }
    }

    fn try_value(
        &self,
        object: &Object<'data>,
        plain: &Type<'data>,
        depth: usize,
    ) -> Result<Value, Missing> {
        let size = self.types.size(&plain.die).unwrap_or(0);
        // Nothing of a type without bytes can be missing.
        let nothing = Place::Bytes(Rc::default());
        let is_empty = self.types.size(&plain.die) == Some(0);
        let place = match &object.place {
            Place::Nowhere(_) if is_empty && plain.language == Language::Rust => &nothing,
            Place::Nowhere(why) => return Err(*why),
            place => place,
        };
        let at = &object.at;
        match &plain.kind {
            Kind::Base(encoding) => {
                let wanted = usize::try_from(size).unwrap_or(0).min(16);
                let bytes = self.bytes(place, *at, wanted)?;
                let value = scalar(*encoding, plain, &bytes);
                let wide = match value {
                    Value::Integer(code) => Some(code),
                    Value::Unsigned(code) => i128::try_from(code).ok(),
                    _ => None,
                };
                let wide = wide.and_then(|code| i64::try_from(code).ok());
                let prefix = wide.and_then(|_| self.characters(&object.of, plain));
                Ok(match (wide, prefix) {
                    (Some(code), Some((prefix, _))) => {
                        let byte = false;
                        Value::Char { code, prefix, byte }
                    }
                    _ => value,
                })
            }
            Kind::Enum(names) => {
                let wanted = usize::try_from(size).unwrap_or(0).min(16);
                let bytes = self.bytes(place, *at, wanted)?;
                Ok(self.enumerated(plain, names, &bytes))
            }
            Kind::Pointer(target) => {
                if matches!(place, Place::Synthetic) {
                    return Ok(Value::Word("<synthetic pointer>"));
                }
                let address = word(&self.bytes(place, *at, 8)?);
                Ok(Value::Pointer(self.pointer(address, target.as_ref())))
            }
            Kind::Reference(target) => {
                if matches!(place, Place::Synthetic) {
                    return Ok(Value::Word("<synthetic pointer>"));
                }
                let address = word(&self.bytes(place, *at, 8)?);
                let Some(target) = target else {
                    return Ok(Value::Pointer(self.pointer(address, None)));
                };
                let target = Object {
                    of: target.clone(),
                    place: Place::Memory(address),
                    at: 0,
                };
                if self.scalars && self.is_aggregate(&target.of) {
                    return Ok(Value::Omitted);
                }
                // Those in objects may lead around in circles.
                if depth > 0 {
                    let target = Box::new(Value::Omitted);
                    return Ok(Value::Reference { address, target });
                }
                Ok(Value::Reference {
                    address,
                    target: Box::new(self.value(&target, depth.saturating_add(1))),
                })
            }
            Kind::MemberPointer => {
                let wanted = usize::try_from(size).unwrap_or(8).clamp(1, 8);
                let bytes = self.bytes(place, *at, wanted)?;
                let offset = i64::from_le_bytes(padded(&bytes));
                let name = self.pointed_member(plain, offset);
                let number = offset.into();
                if size <= 8 {
                    return Ok(Value::Enum { name, number });
                }
                // To a function of the class: its address, or of a virtual one its place in the table, plus 1.
                if offset as u64 % 2 == 1
                    && let Some(name) = self.virtual_function(plain, offset as u64 / 8)
                {
                    return Ok(Value::Described(format!("&virtual {name}")));
                }
                Ok(Value::Pointer(self.pointer(offset as u64, None)))
            }
            Kind::Record(record) => {
                if let Some(slice) = self.slice(object, plain, depth) {
                    return Ok(slice);
                }
                if self.containers
                    && let Some(container) = self.container(object, plain, record, depth)
                {
                    return Ok(container);
                }
                if self.scalars {
                    return Ok(Value::Omitted);
                }
                if size > 0 {
                    // One answer for an object without any bytes in the core.
                    if let Place::Memory(start) = place {
                        let from = start.wrapping_add(*at);
                        if self.some_bytes(from, 1).is_empty() {
                            return Err(Missing::NotInTheCore(from));
                        }
                    }
                }
                Ok(self.record(object, plain, record, depth))
            }
            Kind::Array {
                element,
                dimensions,
            } => {
                let Some(element) = element else {
                    return Ok(Value::Word("<incomplete type>"));
                };
                let counts: Vec<Option<u64>> = dimensions
                    .iter()
                    .map(|dimension| self.count(dimension))
                    .collect();
                self.array(object, element, &counts, plain, depth)
            }
            Kind::Incomplete => Ok(Value::Word("<incomplete type>")),
            Kind::Function => {
                let Place::Memory(start) = place else {
                    return Err(Missing::OptimizedOut);
                };
                Ok(Value::Pointer(self.pointer(start.wrapping_add(*at), None)))
            }
            Kind::Alias(_) | Kind::Other => match size {
                0 if plain.name.as_deref() == Some("decltype(nullptr)") => Ok(Value::Word("0")),
                0 => Ok(Value::Word("void")),
                _ => {
                    let bytes =
                        self.bytes(place, *at, 8.min(usize::try_from(size).unwrap_or(8)))?;
                    Ok(Value::Pointer(
                        self.pointer(u64::from_le_bytes(padded(&bytes)), None),
                    ))
                }
            },
        }
    }

    /// The member that a pointer to members means.
    fn pointed_member(&self, plain: &Type<'data>, offset: i64) -> Option<String> {
        let class = plain.die.follow(gimli::DW_AT_containing_type)?;
        let class = self.types.plain(&class)?;
        let Kind::Record(record) = &class.kind else {
            return None;
        };
        let offset = match u64::try_from(offset) {
            Ok(offset) => offset,
            // No member is at -1.
            Err(_) => return Some("NULL".to_owned()),
        };
        let is_it = |member: &&MemberType<'data>| {
            member.offset == Some(offset) && !member.is_static && !member.is_base
        };
        let name = record.members.iter().find(is_it)?.name.clone()?;
        Some(format!("&{}::{name}", self.types.qualified(&class)?))
    }

    /// The virtual function at a place in the table of the class that a pointer to its functions belongs to.
    fn virtual_function(&self, plain: &Type<'data>, number: u64) -> Option<String> {
        let class = plain.die.follow(gimli::DW_AT_containing_type)?;
        let class = self.types.plain(&class)?;
        let is_it = |die: &Die<'data>| {
            let at = die.attr(gimli::DW_AT_vtable_elem_location);
            let Some(AttributeValue::Exprloc(place)) = at else {
                return false;
            };
            let mut operations = place.operations(die.unit.unit.encoding());
            matches!(
                operations.next(),
                Ok(Some(gimli::Operation::UnsignedConstant { value })) if value == number
            )
        };
        let functions = class.die.children(FUNCTIONS);
        let name = functions.iter().find(|die| is_it(die))?.name()?;
        Some(format!("{}::{name}", self.types.qualified(&class)?))
    }

    fn count(&self, dimension: &Count<'data>) -> Option<u64> {
        let die = match dimension {
            Count::Known(count) => return Some(*count),
            Count::Unknown => return None,
            Count::Dynamic(die) => die,
        };
        let read = |name| {
            let attribute = die.attr(name)?;
            if let AttributeValue::Exprloc(expression) = attribute {
                return self.frame.number(&die.unit, expression, 0).ok();
            }
            let variable = die.resolve(attribute)?;
            let of = variable.type_die()?;
            let size = usize::try_from(self.types.size(&of)?).ok()?.min(8);
            let place = self.frame.place_of(&variable, size as u64);
            let bytes = self.bytes(&place, 0, size).ok()?;
            Some(u64::from_le_bytes(padded(&bytes)))
        };
        let count = read(gimli::DW_AT_count);
        count.or_else(|| read(gimli::DW_AT_upper_bound)?.checked_add(1))
    }

    /// Whether values of the type are written with braces.
    pub(crate) fn is_aggregate(&self, of: &Die<'data>) -> bool {
        let plain = self.types.plain(of);
        plain.is_some_and(|plain| {
            matches!(
                plain.kind,
                Kind::Record(_) | Kind::Array { .. } | Kind::Incomplete
            )
        })
    }

    pub(crate) fn pointer(&self, address: u64, target: Option<&Die<'data>>) -> Pointer {
        let plain = target.and_then(|target| self.types.plain(target));
        let prefix = target
            .zip(plain.as_ref())
            .and_then(|(of, plain)| self.characters(of, plain));
        let text = prefix
            .filter(|_| address != 0)
            .map(|(prefix, width)| self.text_at(address, prefix, width));
        // A text has a better description than a symbol that happens to be there.
        let symbol = (self.symbol)(address).filter(|_| address != 0);
        Pointer {
            address,
            symbol,
            text,
        }
    }

    /// As [`text_prefix`]. In C, types of wide characters are typedefs of numbers.
    fn characters(&self, of: &Die<'data>, plain: &Type<'data>) -> Option<(&'static str, usize)> {
        if let Some(found) = text_prefix(plain) {
            return Some(found);
        }
        match (self.types.alias_of_characters(of)?, plain.size) {
            ("wchar_t", Some(4)) => Some(("L", 4)),
            ("char16_t", Some(2)) => Some(("u", 2)),
            ("char32_t", Some(4)) => Some(("U", 4)),
            _ => None,
        }
    }

    /// The text at an address, up to its end.
    fn text_at(&self, address: u64, prefix: &'static str, width: usize) -> Result<Text, Missing> {
        let wanted = ELEMENTS.saturating_mul(width);
        let bytes = self.some_bytes(address, wanted);
        let mut codes: Vec<u32> = bytes.chunks_exact(width).map(code).collect();
        let known = codes.len();
        let end = codes.iter().position(|code| *code == 0);
        if end.is_none() && known < ELEMENTS {
            let at = address.wrapping_add(bytes.len() as u64);
            if known == 0 {
                return Err(Missing::NotInTheCore(at));
            }
        }
        codes.truncate(end.unwrap_or(known));
        Ok(Text {
            codes,
            bytes: width == 1,
            prefix,
            more: end.is_none(),
        })
    }

    fn enumerated(&self, plain: &Type<'data>, names: &[(String, i128)], bytes: &[u8]) -> Value {
        let unsigned = u128::from_le_bytes(padded(bytes));
        let bits = (bytes.len() as u32).saturating_mul(8);
        let unused = 128_u32.saturating_sub(bits);
        let signed = (unsigned as i128).wrapping_shl(unused).wrapping_shr(unused);
        let has_sign = names.iter().any(|(_, value)| *value < 0);
        let number = if has_sign || bits >= 128 {
            signed
        } else {
            unsigned as i128
        };
        let outer = || {
            let full = self.types.qualified(plain)?;
            match plain.die.flag(gimli::DW_AT_enum_class) {
                true => Some(format!("{full}::")),
                // Enumerators of C++ are in the namespace of their enumeration.
                false => {
                    let end = full.rfind("::")?.checked_add(2)?;
                    full.get(..end).map(str::to_owned)
                }
            }
        };
        let outer = match plain.language {
            Language::Cpp => outer().unwrap_or_default(),
            Language::Rust => outer()
                .or_else(|| Some(format!("{}::", self.types.qualified(plain)?)))
                .unwrap_or_default(),
            _ => String::new(),
        };
        let exact = names.iter().find(|(_, value)| *value == number);
        let name = match exact {
            Some((name, _)) => Some(format!("{outer}{name}")),
            None => flags(names, number, &outer),
        };
        Value::Enum { name, number }
    }

    fn record(
        &self,
        object: &Object<'data>,
        plain: &Type<'data>,
        record: &RecordType<'data>,
        depth: usize,
    ) -> Value {
        if let Some(variant) = self.variant(object, record) {
            return self.variant_value(object, plain, record, variant, depth);
        }
        let is_rust = plain.language == Language::Rust;
        let tuple = |member: &MemberType<'data>| {
            let name = member.name.as_deref().unwrap_or_default();
            name.strip_prefix("__")
                .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        };
        let style = match is_rust {
            true if !record.members.is_empty() && record.members.iter().all(tuple) => {
                Style::RustTuple
            }
            true => Style::Rust,
            false => Style::C,
        };
        let mut members = Vec::new();
        let mut more = false;
        for member in &record.members {
            if self.left.get() == 0 {
                more = true;
                break;
            }
            members.push(self.member(object, member, depth));
        }
        // Base classes come first.
        members.sort_by_key(|member| member.kind != MemberKind::Base);
        let name = if is_rust {
            self.types.qualified(plain)
        } else {
            None
        };
        Value::Record(Record {
            name,
            style,
            members,
            more,
        })
    }

    /// The variant that an enum of Rust has.
    pub(crate) fn variant<'r>(
        &self,
        object: &Object<'data>,
        record: &'r RecordType<'data>,
    ) -> Option<Result<&'r Variant<'data>, Missing>> {
        let variants = record.variants.as_ref()?;
        let Some(discriminant) = &variants.discriminant else {
            let only = variants.variants.first();
            return only.map(Ok);
        };
        let of = discriminant.of.as_ref()?;
        let size = usize::try_from(self.types.size(of)?).ok()?.min(16);
        let at = object.at.wrapping_add(discriminant.offset?);
        let bytes = match self.bytes(&object.place, at, size) {
            Ok(bytes) => bytes,
            Err(why) => return Some(Err(why)),
        };
        let unsigned = u128::from_le_bytes(padded(&bytes)) as i128;
        let unused = 128_u32.saturating_sub((size as u32).saturating_mul(8));
        let signed = unsigned.wrapping_shl(unused).wrapping_shr(unused);
        let is_it = |variant: &&Variant<'data>| {
            let values = variant.values.as_deref().unwrap_or_default();
            values.iter().any(|(first, last)| {
                (*first..=*last).contains(&unsigned) || (*first..=*last).contains(&signed)
            })
        };
        let found = variants.variants.iter().find(is_it);
        let default = || {
            let all = &variants.variants;
            all.iter().find(|variant| variant.values.is_none())
        };
        found.or_else(default).map(Ok)
    }

    fn variant_value(
        &self,
        object: &Object<'data>,
        plain: &Type<'data>,
        _record: &RecordType<'data>,
        variant: Result<&Variant<'data>, Missing>,
        depth: usize,
    ) -> Value {
        let variant = match variant {
            Ok(variant) => variant,
            Err(why) => return Value::Missing(why),
        };
        let member = &variant.member;
        let mut value = self.member(object, member, depth).value;
        if let Value::Record(record) = &mut value {
            let outer = self.types.qualified(plain).unwrap_or_default();
            let name = member.name.as_deref().unwrap_or_default();
            record.name = Some(format!("{outer}::{name}"));
            record.style = match record.style {
                Style::RustTuple => Style::RustTupleVariant,
                _ => Style::RustVariant,
            };
        }
        value
    }

    pub(crate) fn member(
        &self,
        object: &Object<'data>,
        member: &MemberType<'data>,
        depth: usize,
    ) -> Member {
        let depth = depth.saturating_add(1);
        let kind = match (member.is_base, member.is_static) {
            (true, _) => MemberKind::Base,
            (_, true) => MemberKind::Static,
            _ => MemberKind::Plain,
        };
        let name = match (kind, &member.of) {
            // The class itself, not a name that it has for it.
            (MemberKind::Base, Some(of)) => {
                let plain = self.types.plain(of);
                let own = plain.as_ref().map_or(of, |plain| &plain.die);
                Some(self.types.name(Some(own)))
            }
            _ => member.name.clone(),
        };
        let value = match kind {
            MemberKind::Static => {
                let class = self.types.plain(&object.of);
                let class = class.and_then(|class| self.types.qualified(&class));
                self.static_member(member, class.as_deref(), depth)
            }
            _ => match self.locate(object, member) {
                Ok(inside) => match member.bits {
                    Some((first, size)) => self.bit_field(object, &inside, first, size),
                    None => self.value(&inside, depth),
                },
                Err(why) => Value::Missing(why),
            },
        };
        Member { name, kind, value }
    }

    /// Where a member is.
    pub(crate) fn locate(
        &self,
        object: &Object<'data>,
        member: &MemberType<'data>,
    ) -> Result<Object<'data>, Missing> {
        let of = member.of.clone().ok_or(Missing::OptimizedOut)?;
        if let Some(offset) = member.offset {
            return Ok(Object {
                of,
                place: object.place.clone(),
                at: object.at.wrapping_add(offset),
            });
        }
        // Virtual base classes.
        let Place::Memory(start) = object.place else {
            return Err(Missing::OptimizedOut);
        };
        let start = start.wrapping_add(object.at);
        let location = member.die.attr(gimli::DW_AT_data_member_location);
        let location = location.ok_or(Missing::OptimizedOut)?;
        match self.frame.place(&member.die.unit, location, 0, Some(start)) {
            Place::Memory(at) => Ok(Object {
                of,
                place: Place::Memory(at),
                at: 0,
            }),
            Place::Nowhere(why) => Err(why),
            _ => Err(Missing::OptimizedOut),
        }
    }

    fn static_member(
        &self,
        member: &MemberType<'data>,
        class: Option<&str>,
        depth: usize,
    ) -> Value {
        let Some(of) = member.of.clone() else {
            return Value::Missing(Missing::OptimizedOut);
        };
        let size = self.types.size(&of).unwrap_or(0);
        let mut place = self.frame.place_of(&member.die, size);
        if matches!(place, Place::Nowhere(_))
            && let Some(name) = member
                .die
                .linkage_name()
                .or_else(|| mangled(class?, member.name.as_deref()?))
            && let Some(at) = (self.address_of)(&name)
        {
            place = Place::Memory(at);
        }
        // It may contain itself: the type of a singleton.
        let depth = depth.saturating_add(DEPTH / 4);
        self.value(&Object { of, place, at: 0 }, depth)
    }

    fn bit_field(
        &self,
        object: &Object<'data>,
        inside: &Object<'data>,
        first: u64,
        size: u64,
    ) -> Value {
        let Some(plain) = self.types.plain(&inside.of) else {
            return Value::Missing(Missing::OptimizedOut);
        };
        // Old forms count from the start of the object too.
        let at = object.at.wrapping_add(first / 8);
        let shift = u32::try_from(first % 8).unwrap_or(0);
        let size = u32::try_from(size).unwrap_or(64).clamp(1, 64);
        let wanted = usize::try_from(shift.saturating_add(size).div_ceil(8)).unwrap_or(9);
        let bytes = match self.bytes(&object.place, at, wanted) {
            Ok(bytes) => bytes,
            Err(why) => return Value::Missing(why),
        };
        let bits = u128::from_le_bytes(padded(&bytes)).wrapping_shr(shift);
        let unused = 128_u32.saturating_sub(size);
        let unsigned = bits.wrapping_shl(unused).wrapping_shr(unused);
        let signed = (bits.wrapping_shl(unused) as i128).wrapping_shr(unused);
        match &plain.kind {
            Kind::Base(gimli::DW_ATE_boolean) if unsigned < 2 => Value::Bool(unsigned == 1),
            Kind::Base(gimli::DW_ATE_signed_char) => Value::Char {
                code: signed as i64,
                prefix: "",
                byte: true,
            },
            Kind::Base(gimli::DW_ATE_unsigned_char) => Value::Char {
                code: unsigned as i64,
                prefix: "",
                byte: true,
            },
            Kind::Base(gimli::DW_ATE_signed) => Value::Integer(signed),
            Kind::Enum(names) => {
                let has_sign = names.iter().any(|(_, value)| *value < 0);
                let number = if has_sign { signed as u128 } else { unsigned };
                self.enumerated(&plain, names, &number.to_le_bytes())
            }
            _ => Value::Unsigned(unsigned),
        }
    }

    fn array(
        &self,
        object: &Object<'data>,
        element: &Die<'data>,
        counts: &[Option<u64>],
        plain: &Type<'data>,
        depth: usize,
    ) -> Result<Value, Missing> {
        let rust = plain.language == Language::Rust;
        let (first, inner) = match counts.split_first() {
            Some((first, inner)) => (*first, inner),
            None => (None, counts),
        };
        let Some(count) = first else {
            // How many there are is not known: as a pointer to the first one.
            return match object.place {
                Place::Memory(start) => {
                    let start = start.wrapping_add(object.at);
                    Ok(Value::Pointer(self.pointer(start, Some(element))))
                }
                _ => Err(Missing::OptimizedOut),
            };
        };
        let mut size = self.types.size(element).unwrap_or(0);
        for dimension in inner {
            size = size.saturating_mul(dimension.unwrap_or(0));
        }
        let characters = self
            .types
            .plain(element)
            .filter(|_| inner.is_empty() && !rust)
            .and_then(|plain| self.characters(element, &plain));
        if let Some((prefix, width)) = characters {
            let text = self.text(object, count, prefix, width);
            // Of one in pieces, the known ones are shown.
            if text.is_ok() || !matches!(object.place, Place::Bytes(_)) {
                return text;
            }
        }
        if self.scalars {
            return Ok(Value::Omitted);
        }
        self.elements(object, element, inner, size, count, plain, depth)
    }

    /// An array of characters.
    fn text(
        &self,
        object: &Object<'data>,
        count: u64,
        prefix: &'static str,
        width: usize,
    ) -> Result<Value, Missing> {
        let width = width.max(1);
        let most = ARRAY.checked_div(width as u64).unwrap_or(ARRAY);
        let wanted = usize::try_from(count.min(most)).unwrap_or(0);
        let bytes = self.bytes(&object.place, object.at, wanted.saturating_mul(width))?;
        let mut codes: Vec<u32> = bytes.chunks_exact(width).map(code).collect();
        let mut more = count > most;
        if !more && codes.last() == Some(&0) {
            codes.pop();
        }
        // Runs count as the elements that they are shown as.
        let (mut shown, mut end) = (0_usize, 0_usize);
        for run in codes.chunk_by(|a, b| a == b) {
            if shown >= ELEMENTS {
                more = true;
                break;
            }
            let counted = match run.len() as u64 > REPEATS {
                true => REPEATS as usize,
                false => run.len(),
            };
            let room = ELEMENTS.saturating_sub(shown);
            if counted > room {
                end = end.saturating_add(room);
                more = true;
                break;
            }
            shown = shown.saturating_add(counted);
            end = end.saturating_add(run.len());
        }
        codes.truncate(end);
        Ok(Value::Text(Text {
            codes,
            bytes: width == 1,
            prefix,
            more,
        }))
    }

    /// Elements of one type that are in memory one behind the other.
    pub(crate) fn elements_at(
        &self,
        start: u64,
        count: u64,
        element: &Die<'data>,
        depth: usize,
    ) -> Option<Array> {
        let object = Object {
            of: element.clone(),
            place: Place::Memory(start),
            at: 0,
        };
        let size = self.types.size(element)?;
        let plain = self.types.plain(element)?;
        match self.elements(&object, element, &[], size, count, &plain, depth) {
            Ok(Value::Array(array)) => Some(array),
            _ => None,
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of one array
    fn elements(
        &self,
        object: &Object<'data>,
        element: &Die<'data>,
        inner: &[Option<u64>],
        size: u64,
        count: u64,
        plain: &Type<'data>,
        depth: usize,
    ) -> Result<Value, Missing> {
        let rust = plain.language == Language::Rust;
        let depth = depth.saturating_add(1);
        let mut elements: Vec<(Value, u64)> = Vec::new();
        let (mut shown, mut index) = (0_u64, 0_u64);
        let width = usize::try_from(size).unwrap_or(usize::MAX).max(1);
        let same = |a: u64, b: u64| {
            let inside = b.saturating_mul(size) < ARRAY && size > 0 && size < ARRAY;
            let read = |index: u64| {
                let at = object.at.wrapping_add(index.wrapping_mul(size));
                self.bytes(&object.place, at, width)
            };
            // Those that are optimized out are equal too; those that the core lacks are at different addresses.
            inside && read(a) == read(b)
        };
        while index < count && shown < ELEMENTS as u64 && self.left.get() > 0 {
            let one = Object {
                of: element.clone(),
                place: object.place.clone(),
                at: object.at.wrapping_add(index.wrapping_mul(size)),
            };
            let mut repeats = 1_u64;
            while index.saturating_add(repeats) < count
                && same(index, index.saturating_add(repeats))
            {
                repeats = repeats.saturating_add(1);
            }
            let value = match inner.is_empty() {
                true => self.value(&one, depth),
                false => match self.array(&one, element, inner, plain, depth) {
                    Ok(value) => value,
                    Err(why) => Value::Missing(why),
                },
            };
            if index == 0
                && let Value::Missing(why) = &value
                && inner.is_empty()
                && matches!(object.place, Place::Memory(_))
            {
                return Err(*why);
            }
            let counted = match repeats > REPEATS {
                true => REPEATS,
                false => {
                    repeats = 1;
                    1
                }
            };
            elements.push((value, repeats));
            shown = shown.saturating_add(counted);
            index = index.saturating_add(repeats);
        }
        Ok(Value::Array(Array {
            name: None,
            elements,
            more: index < count,
            rust,
        }))
    }

    /// The member of a record that has a name, in its base classes too.
    pub(crate) fn field(&self, object: &Object<'data>, name: &str) -> Option<Object<'data>> {
        self.field_within(object, name, 0)
    }

    fn field_within(
        &self,
        object: &Object<'data>,
        name: &str,
        depth: usize,
    ) -> Option<Object<'data>> {
        if depth > DEPTH {
            return None;
        }
        let plain = self.types.plain(&object.of)?;
        let Kind::Record(record) = &plain.kind else {
            return None;
        };
        let own = |member: &&MemberType<'data>| member.name.as_deref() == Some(name);
        if let Some(member) = record.members.iter().find(own) {
            return self.locate(object, member).ok();
        }
        let transparent = |member: &&MemberType<'data>| member.is_base || member.name.is_none();
        record
            .members
            .iter()
            .filter(transparent)
            .find_map(|member| {
                let inside = self.locate(object, member).ok()?;
                self.field_within(&inside, name, depth.saturating_add(1))
            })
    }

    /// A pointer or an unsigned number.
    pub(crate) fn number(&self, object: &Object<'data>) -> Option<u64> {
        let size = usize::try_from(self.types.size(&object.of)?).ok()?;
        let bytes = self.bytes(&object.place, object.at, size.min(8)).ok()?;
        (size <= 8).then(|| u64::from_le_bytes(padded(&bytes)))
    }

    pub(crate) fn is_pointer(&self, of: &Die<'data>) -> Option<Option<Die<'data>>> {
        let plain: Rc<Type<'data>> = self.types.plain(of)?;
        match &plain.kind {
            Kind::Pointer(target) | Kind::Reference(target) => Some(target.clone()),
            _ => None,
        }
    }
}

/// Up to sixteen bytes as an array, the rest 0.
pub(crate) fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut all = [0; N];
    for (byte, from) in all.iter_mut().zip(bytes) {
        *byte = *from;
    }
    all
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(padded(bytes))
}

fn code(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(padded(bytes))
}

/// How C writes text of these characters, and their bytes; `None` if it is no type of characters.
pub(crate) fn text_prefix(plain: &Type<'_>) -> Option<(&'static str, usize)> {
    let Kind::Base(encoding) = &plain.kind else {
        return None;
    };
    let name = plain.name.as_deref().unwrap_or_default();
    match (plain.language, *encoding, plain.size, name) {
        (Language::Rust | Language::Go, ..) => None,
        (_, gimli::DW_ATE_signed_char | gimli::DW_ATE_unsigned_char, Some(1), _) => Some(("", 1)),
        (_, gimli::DW_ATE_UTF, Some(1), _) => Some(("u8", 1)),
        (_, _, Some(4), "wchar_t") => Some(("L", 4)),
        (_, gimli::DW_ATE_UTF, Some(2), _) => Some(("u", 2)),
        (_, gimli::DW_ATE_UTF, Some(4), _) => Some(("U", 4)),
        _ => None,
    }
}

fn scalar(encoding: DwAte, plain: &Type<'_>, bytes: &[u8]) -> Value {
    let unsigned = u128::from_le_bytes(padded(bytes));
    let bits = (bytes.len() as u32).saturating_mul(8);
    let unused = 128_u32.saturating_sub(bits).min(127);
    let signed = (unsigned as i128).wrapping_shl(unused).wrapping_shr(unused);
    let name = plain.name.as_deref().unwrap_or_default();
    if plain.language != Language::Rust
        && let Some((prefix, _)) = text_prefix(plain)
    {
        let code = match encoding {
            gimli::DW_ATE_signed_char | gimli::DW_ATE_signed => signed as i64,
            _ => unsigned as i64,
        };
        let byte = bytes.len() == 1;
        return Value::Char { code, prefix, byte };
    }
    match encoding {
        gimli::DW_ATE_boolean if unsigned < 2 => Value::Bool(unsigned == 1),
        gimli::DW_ATE_UTF => Value::Char {
            code: unsigned as i64,
            prefix: "",
            byte: false,
        },
        gimli::DW_ATE_float => match bytes.len() {
            4 => Value::Float {
                value: f32::from_le_bytes(padded(bytes)).into(),
                single: true,
            },
            8 => Value::Float {
                value: f64::from_le_bytes(padded(bytes)),
                single: false,
            },
            // Of x87, in as many bytes as keep it aligned.
            12 | 16 if name.contains("long double") => {
                let exponent = u16::from_le_bytes(padded(bytes.get(8..).unwrap_or_default()));
                Value::Extended(exponent, u64::from_le_bytes(padded(bytes)))
            }
            _ => Value::Word("<a number of another size>"),
        },
        gimli::DW_ATE_complex_float => complex(bytes),
        gimli::DW_ATE_signed | gimli::DW_ATE_signed_char => Value::Integer(signed),
        gimli::DW_ATE_address => Value::Unsigned(unsigned),
        // The type that Rust gives `()` has no bytes.
        _ if bytes.is_empty() && name == "()" => Value::Word("()"),
        _ if bytes.is_empty() => Value::Word("void"),
        _ => Value::Unsigned(unsigned),
    }
}

/// The symbol of a static member, which clang does not state: of classes without template arguments.
fn mangled(class: &str, name: &str) -> Option<String> {
    let is_plain = |part: &str| {
        let mut letters = part.chars();
        !part.is_empty() && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
    };
    let parts: Vec<&str> = class.split("::").chain([name]).collect();
    let are_plain = parts.iter().all(|part| is_plain(part));
    let parts = parts.iter().map(|part| format!("{}{part}", part.len()));
    are_plain.then(|| format!("_ZN{}E", parts.collect::<String>()))
}

/// Two floating-point numbers: `1 + 2i`.
fn complex(bytes: &[u8]) -> Value {
    let number = |bytes: &[u8]| match bytes.len() {
        4 => Some(Value::Float {
            value: f32::from_le_bytes(padded(bytes)).into(),
            single: true,
        }),
        8 => Some(Value::Float {
            value: f64::from_le_bytes(padded(bytes)),
            single: false,
        }),
        _ => None,
    };
    let halves = bytes.split_at_checked(bytes.len() / 2);
    let numbers = halves.and_then(|(real, imaginary)| number(real).zip(number(imaginary)));
    match numbers {
        Some((real, imaginary)) => Value::Described(format!("{real} + {imaginary}i")),
        None => Value::Word("<a complex number>"),
    }
}

/// The flags that a number consists of, if all enumerators are flags: `(A | B)`.
fn flags(names: &[(String, i128)], number: i128, outer: &str) -> Option<String> {
    let is_flag = |value: i128| value >= 0 && value.count_ones() <= 1;
    if names.is_empty() || !names.iter().all(|(_, value)| is_flag(*value)) || number < 0 {
        return None;
    }
    if number == 0 {
        return Some("0".to_owned());
    }
    let mut left = number;
    let mut found: Vec<String> = Vec::new();
    for (name, value) in names {
        if *value != 0 && left & value == *value {
            found.push(format!("{outer}{name}"));
            left &= !value;
        }
    }
    match (found.is_empty(), left) {
        (true, _) => Some(format!("(unknown: {number:#x})")),
        (false, 0) => Some(format!("({})", found.join(" | "))),
        (false, left) => Some(format!("({} | unknown: {left:#x})", found.join(" | "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_members_of_plain_classes_have_a_symbol() {
        let symbol = mangled("shop::Item", "count");
        assert_eq!(symbol.as_deref(), Some("_ZN4shop4Item5countE"));
        assert_eq!(mangled("Box<int>", "count"), None);
        assert_eq!(mangled("(anonymous namespace)::Item", "count"), None);
    }

    #[test]
    fn complex_numbers_are_written_as_gdb_writes_them() {
        let bytes = [1.0_f32.to_le_bytes(), (-2.5_f32).to_le_bytes()].concat();
        assert_eq!(complex(&bytes).to_string(), "1 + -2.5i");
        let bytes = [0.5_f64.to_le_bytes(), 2.0_f64.to_le_bytes()].concat();
        assert_eq!(complex(&bytes).to_string(), "0.5 + 2i");
        assert_eq!(complex(&[0; 3]).to_string(), "<a complex number>");
    }
}
