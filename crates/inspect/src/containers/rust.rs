//! Containers of Rust's standard library. Their members have changed over the years: pointers are found by their type.

use super::{FIRST, LARGEST, STEPS, Value, ValueReader};
use crate::dwarf::Die;
use crate::location::Place;
use crate::reader::{Object, padded};
use crate::types::{Kind, Language, Record, Type};
use crate::value::{Array, Missing};

impl<'data> ValueReader<'_, 'data> {
    pub(super) fn rust(
        &self,
        object: &Object<'data>,
        plain: &Type<'data>,
        record: &Record<'data>,
        name: &str,
        depth: usize,
    ) -> Option<Value> {
        let base = name.split('<').next()?;
        let full = self.types.qualified(plain)?;
        let is_std = ["alloc::", "core::", "std::", "hashbrown::"]
            .iter()
            .any(|library| full.starts_with(library));
        if !is_std {
            return None;
        }
        match base {
            "String" => {
                let vec = self.field(object, "vec")?;
                let start = self.first_pointer(&self.field(&vec, "buf")?, 0)?;
                self.text_of(self.number(&start)?, self.field_number(&vec, &["len"])?)
            }
            "Vec" => {
                let start = self.first_pointer(&self.field(object, "buf")?, 0)?;
                let length = self.field_number(object, &["len"])?;
                let element = self.parameter(&object.of, &["T"])?;
                let name = format!("Vec({length})");
                self.rust_row(&name, self.number(&start)?, length, &element, depth)
            }
            "Option" => {
                let variant = self.variant(object, record)?.ok()?;
                let name = variant.member.name.as_deref()?;
                if name == "None" {
                    return Some(self.single("None", None));
                }
                let some = self.locate(object, &variant.member).ok()?;
                let held = self.field(&some, "__0")?;
                let value = self.value(&held, depth.saturating_add(1));
                Some(self.single("Some", Some(value)))
            }
            "Rc" | "Arc" => {
                let pointer = self.first_pointer(object, 0)?;
                let inner = self.is_pointer(&pointer.of)??;
                let address = self.number(&pointer)?;
                let inner = Object {
                    of: inner,
                    place: Place::Memory(address),
                    at: 0,
                };
                let held = self
                    .field(&inner, "value")
                    .or_else(|| self.field(&inner, "data"))?;
                let value = self.value(&held, depth.saturating_add(1));
                Some(self.single(base, Some(value)))
            }
            "Cell" | "UnsafeCell" | "RefCell" | "Mutex" | "RwLock" => {
                let held = self
                    .field(object, "value")
                    .or_else(|| self.field(object, "data"))?;
                let value = self.value(&self.inside_cells(held), depth.saturating_add(1));
                Some(self.single(&self.with_state(object, base), Some(value)))
            }
            _ if base.starts_with("Atomic") && full.contains("::atomic::") => {
                let held = self.inside_cells(self.field(object, "v")?);
                let value = self.value(&held, depth.saturating_add(1));
                Some(self.single(base, Some(value)))
            }
            // What is borrowed from a `RefCell`, if it has a size.
            "Ref" | "RefMut" if full.starts_with("core::cell::") => {
                let pointer = self.field(&self.field(object, "value")?, "pointer")?;
                let of = self.is_pointer(&pointer.of)??;
                let place = Place::Memory(self.number(&pointer)?);
                let value = self.value(&Object { of, place, at: 0 }, depth.saturating_add(1));
                Some(self.single(base, Some(value)))
            }
            "HashMap" | "HashSet" => self.hash_map(object, base, depth),
            _ => None,
        }
    }

    /// What is in the cells of an object: `UnsafeCell`s, which are nothing but what they hold.
    fn inside_cells(&self, object: Object<'data>) -> Object<'data> {
        let mut object = object;
        for _ in 0..4 {
            let plain = self.types.plain(&object.of);
            let name = plain.and_then(|plain| plain.name.clone());
            let is_cell = name.is_some_and(|name| {
                ["UnsafeCell<", "Cell<"]
                    .iter()
                    .any(|start| name.starts_with(start))
            });
            match self.field(&object, "value").filter(|_| is_cell) {
                Some(inner) => object = inner,
                None => break,
            }
        }
        object
    }

    /// The name of a cell with what a program that hangs or panics wants to know of it.
    fn with_state(&self, object: &Object<'data>, base: &str) -> String {
        let number = |path: &[&str]| {
            let mut at = object.clone();
            for name in path {
                at = self.field(&at, name)?;
            }
            self.number(&self.inside_cells(at))
        };
        let state = match base {
            "RefCell" => match number(&["borrow"]).unwrap_or(0).cast_signed() {
                0 => None,
                1.. => Some("borrowed"),
                _ => Some("mutably borrowed"),
            },
            "Mutex" | "RwLock" => number(&["poison", "failed", "v"])
                .is_some_and(|failed| failed & 0xff != 0)
                .then_some("poisoned"),
            _ => None,
        };
        state.map_or_else(|| base.to_owned(), |state| format!("{base}[{state}]"))
    }

    /// Slices and `str`, which gdb knows too.
    pub(crate) fn slice(
        &self,
        object: &Object<'data>,
        plain: &Type<'data>,
        depth: usize,
    ) -> Option<Value> {
        let name = plain.name.as_deref()?;
        if plain.language != Language::Rust || !name.starts_with(['&', '*']) {
            return None;
        }
        let start = self.field(object, "data_ptr")?;
        let length = self.field(object, "length")?;
        let at = match self.bytes(&start.place, start.at, 8) {
            Ok(bytes) => u64::from_le_bytes(padded(&bytes)),
            Err(why) => return Some(Value::Missing(why)),
        };
        let length = match self.bytes(&length.place, length.at, 8) {
            Ok(bytes) => u64::from_le_bytes(padded(&bytes)),
            Err(why) => return Some(Value::Missing(why)),
        };
        if name.ends_with("str") {
            let missing = Value::Missing(Missing::NotInTheCore(at));
            return Some(self.text_of(at, length).unwrap_or(missing));
        }
        let element = self.is_pointer(&start.of)??;
        self.rust_row(name, at, length, &element, depth)
    }

    /// Elements, written as Rust does.
    fn rust_row(
        &self,
        name: &str,
        start: u64,
        length: u64,
        element: &Die<'data>,
        depth: usize,
    ) -> Option<Value> {
        let size = self.types.size(element)?;
        if length.checked_mul(size.max(1))? > LARGEST {
            return None;
        }
        let mut array = match length {
            0 => Array {
                name: None,
                elements: Vec::new(),
                more: false,
                rust: true,
            },
            _ if self.scalars => return Some(Value::Omitted),
            _ => self.elements_at(start, length, element, depth)?,
        };
        array.name = Some(name.to_owned());
        Some(Value::Array(array))
    }

    /// The first pointer in an object, however deep.
    fn first_pointer(&self, object: &Object<'data>, depth: usize) -> Option<Object<'data>> {
        if depth > 12 {
            return None;
        }
        if self.is_pointer(&object.of).is_some() {
            return Some(object.clone());
        }
        let plain = self.types.plain(&object.of)?;
        let Kind::Record(record) = &plain.kind else {
            return None;
        };
        record.members.iter().take(16).find_map(|member| {
            let inside = self.locate(object, member).ok()?;
            self.first_pointer(&inside, depth.saturating_add(1))
        })
    }

    /// hashbrown: control bytes, in front of them the elements backwards; the highest bit marks a free place.
    fn hash_map(&self, object: &Object<'data>, base: &str, depth: usize) -> Option<Value> {
        let mut table = object.clone();
        let mut element = None;
        for _ in 0..8 {
            if let Some(found) = self.parameter(&table.of, &["T"])
                && self.field(&table, "table").is_some()
            {
                element = Some(found);
            }
            let next = ["base", "map", "table"];
            match next.iter().find_map(|name| self.field(&table, name)) {
                Some(inner) => table = inner,
                None => break,
            }
        }
        let element = element?;
        let length = self.field_number(&table, &["items"])?;
        let mask = self.field_number(&table, &["bucket_mask"])?;
        let control = self.number(&self.first_pointer(&self.field(&table, "ctrl")?, 0)?)?;
        let size = self.types.size(&element)?;
        let places = mask.checked_add(1)?;
        if length > places || places.checked_mul(size.max(1))? > LARGEST {
            return None;
        }
        let seen = usize::try_from(places).unwrap_or(usize::MAX);
        let bytes = self.some_bytes(control, seen.min(STEPS.saturating_mul(16)));
        let full = bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte & 0x80 == 0);
        let objects = full.take(FIRST).map(|(number, _)| {
            let back = (number as u64).saturating_add(1).wrapping_mul(size);
            Object {
                of: element.clone(),
                place: Place::Memory(control.wrapping_sub(back)),
                at: 0,
            }
        });
        let objects = objects.take(usize::try_from(length).unwrap_or(FIRST));
        let pair = |one: Object<'data>| Some((self.field(&one, "__0")?, self.field(&one, "__1")?));
        if base == "HashSet" {
            let keys = objects.map_while(|one| self.field(&one, "__0"));
            return Some(self.filled(base, Some(length), keys, depth));
        }
        Some(self.map(base, Some(length), objects.map_while(pair), depth))
    }
}
