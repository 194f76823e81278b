//! Containers of standard libraries by what they hold: libstdc++, libc++, Rust, Go.
//!
//! A type is recognized by its name and by the members that it must have; whatever does not fit is read as any other
//! type. Lengths come from the process: they are checked against the memory behind them, and lists end.

mod cpp;
mod rust;

use crate::dwarf::Die;
use crate::location::Place;
use crate::reader::{ELEMENTS, Object, ValueReader};
use crate::types::{Kind, Language, Record, Type};
use crate::value::{Container, Text, Value};

/// Elements of a container that are read.
const FIRST: usize = ELEMENTS;
/// Nodes that are passed on the way to them.
const STEPS: usize = 4096;
/// Largest believable size of a container in bytes.
const LARGEST: u64 = 1 << 40;

impl<'data> ValueReader<'_, 'data> {
    /// What a record holds, if it is a container; `None` to read it member by member.
    pub(crate) fn container(
        &self,
        object: &Object<'data>,
        plain: &Type<'data>,
        record: &Record<'data>,
        depth: usize,
    ) -> Option<Value> {
        let name = plain.name.as_deref()?;
        let object = &Object {
            of: plain.die.clone(),
            ..object.clone()
        };
        match plain.language {
            Language::Cpp => self.cpp(object, plain, name, depth),
            Language::Rust => self.rust(object, plain, record, name, depth),
            Language::Go => self.go(object, name, depth),
            Language::C => None,
        }
    }

    /// Text of a known length in memory.
    fn text_of(&self, start: u64, length: u64) -> Option<Value> {
        if length > LARGEST {
            return None;
        }
        let wanted = usize::try_from(length).unwrap_or(ELEMENTS).min(ELEMENTS);
        let bytes = self.some_bytes(start, wanted);
        if bytes.len() < wanted {
            return None;
        }
        Some(Value::Text(Text {
            codes: bytes.iter().map(|byte| (*byte).into()).collect(),
            bytes: true,
            prefix: "",
            more: length > wanted as u64,
        }))
    }

    /// Elements that are in memory one behind the other.
    fn row(
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
        let object = |number: u64| Object {
            of: element.clone(),
            place: Place::Memory(start.wrapping_add(number.wrapping_mul(size))),
            at: 0,
        };
        let elements = (0..length.min(FIRST as u64)).map(object);
        Some(self.filled(name, Some(length), elements, depth))
    }

    /// A container with these elements.
    fn filled(
        &self,
        name: &str,
        length: Option<u64>,
        elements: impl Iterator<Item = Object<'data>>,
        depth: usize,
    ) -> Value {
        // Arguments are short.
        if self.scalars {
            return self.container_of(name, length, Vec::new(), false);
        }
        let inner = depth.saturating_add(1);
        let mut values = Vec::new();
        for element in elements.take(FIRST) {
            if self.left.get() == 0 {
                break;
            }
            values.push((None, self.value(&element, inner)));
        }
        self.container_of(name, length, values, false)
    }

    /// A map with these pairs.
    fn map(
        &self,
        name: &str,
        length: Option<u64>,
        pairs: impl Iterator<Item = (Object<'data>, Object<'data>)>,
        depth: usize,
    ) -> Value {
        if self.scalars {
            return self.container_of(name, length, Vec::new(), false);
        }
        let inner = depth.saturating_add(1);
        let mut values = Vec::new();
        for (key, value) in pairs.take(FIRST) {
            if self.left.get() == 0 {
                break;
            }
            values.push((Some(self.value(&key, inner)), self.value(&value, inner)));
        }
        self.container_of(name, length, values, false)
    }

    /// Something that holds one value, or none.
    fn single(&self, name: &str, held: Option<Value>) -> Value {
        let elements = held.into_iter().map(|value| (None, value)).collect();
        self.container_of(name, None, elements, true)
    }

    fn container_of(
        &self,
        name: &str,
        length: Option<u64>,
        elements: Vec<(Option<Value>, Value)>,
        single: bool,
    ) -> Value {
        Value::Container(Container {
            name: name.to_owned(),
            length,
            elements,
            single,
        })
    }

    /// The type of a template parameter.
    fn parameter(&self, of: &Die<'data>, names: &[&str]) -> Option<Die<'data>> {
        let plain = self.types.plain(of)?;
        let Kind::Record(record) = &plain.kind else {
            return None;
        };
        let found = record
            .parameters
            .iter()
            .find(|(name, _)| names.contains(&name.as_str()));
        found.map(|(_, of)| of.clone())
    }

    fn field_number(&self, object: &Object<'data>, path: &[&str]) -> Option<u64> {
        self.number(&self.path(object, path)?)
    }

    fn path(&self, object: &Object<'data>, path: &[&str]) -> Option<Object<'data>> {
        let mut found = object.clone();
        for name in path {
            found = self.field(&found, name)?;
        }
        Some(found)
    }

    fn word_at(&self, at: u64) -> Option<u64> {
        self.frame.process.memory.read_u64(cdh_elfcore::Avma(at))
    }

    /// Strings and slices of Go.
    fn go(&self, object: &Object<'data>, name: &str, depth: usize) -> Option<Value> {
        let length = self.field_number(object, &["len"])?;
        if name == "string" {
            return self.text_of(self.field_number(object, &["str"])?, length);
        }
        if !name.starts_with("[]") {
            return None;
        }
        let start = self.field(object, "array")?;
        let element = self.is_pointer(&start.of)??;
        self.row("", self.number(&start)?, length, &element, depth)
    }
}
