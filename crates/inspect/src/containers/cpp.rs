//! Containers of libstdc++ and libc++.

use super::{FIRST, STEPS, Value, ValueReader};
use crate::dwarf::Die;
use crate::location::Place;
use crate::reader::Object;
use crate::types::{Kind, Type};

/// Where the value of a node of a red-black tree is: after color, parent, left and right (libstdc++), or after left,
/// right, parent and color (libc++).
const TREE_VALUE: u64 = 32;

impl<'data> ValueReader<'_, 'data> {
    pub(super) fn cpp(
        &self,
        object: &Object<'data>,
        plain: &Type<'data>,
        name: &str,
        depth: usize,
    ) -> Option<Value> {
        let base = name.split('<').next()?;
        let full = self.types.qualified(plain)?;
        if !full.starts_with("std::") {
            return None;
        }
        let shown = format!("std::{base}");
        match base {
            "basic_string" | "string" => self.cpp_string(object, name),
            "basic_string_view" => {
                let of_bytes = self.holds_bytes(object);
                let start = self.first_number(object, &["_M_str", "__data_", "__data"]);
                let length = self.first_number(object, &["_M_len", "__size_", "__size"]);
                of_bytes.then(|| self.text_of(start?, length?)).flatten()
            }
            "vector" => self.cpp_vector(object, &shown, depth),
            "optional" => {
                let engaged = self.first_number(object, &["_M_engaged", "__engaged_"])?;
                let held = || {
                    let value = self.deep(object, &["_M_value", "__val_"])?;
                    Some(self.value(&value, depth.saturating_add(1)))
                };
                match engaged & 0xff {
                    0 => Some(self.single(&shown, None)),
                    _ => Some(self.single(&shown, Some(held()?))),
                }
            }
            "unique_ptr" => {
                let mut pointer = None;
                self.each_named(
                    object,
                    &["_M_head_impl", "__ptr_", "__value_"],
                    0,
                    &mut |found| {
                        if pointer.is_none() && self.is_pointer(&found.of).is_some() {
                            pointer = Some(found);
                        }
                    },
                );
                self.held(&shown, &pointer?, depth)
            }
            "shared_ptr" | "__shared_ptr" => {
                let pointer = self.field(object, "_M_ptr");
                self.held(
                    &shown,
                    &pointer.or_else(|| self.field(object, "__ptr_"))?,
                    depth,
                )
            }
            "map" | "multimap" | "set" | "multiset" => {
                self.tree(object, &shown, base.ends_with("map"), depth)
            }
            "unordered_map" | "unordered_multimap" | "unordered_set" | "unordered_multiset" => {
                self.table(object, &shown, base.ends_with("map"), depth)
            }
            "list" | "__cxx11::list" => self.list(object, &shown, depth),
            _ => None,
        }
    }

    /// Whether the characters of a string are bytes.
    fn holds_bytes(&self, object: &Object<'data>) -> bool {
        let character = self.parameter(&object.of, &["_CharT"]);
        let size = character.and_then(|of| self.types.size(&of));
        size.is_none_or(|size| size == 1)
    }

    fn cpp_string(&self, object: &Object<'data>, _name: &str) -> Option<Value> {
        if !self.holds_bytes(object) {
            return None;
        }
        if let Some(start) = self.field_number(object, &["_M_dataplus", "_M_p"]) {
            let length = match self.field_number(object, &["_M_string_length"]) {
                Some(length) => length,
                // Before C++11, size, capacity and references are in front of the text.
                None => self.word_at(start.wrapping_sub(24))?,
            };
            return self.text_of(start, length);
        }
        // libc++: the lowest bit of the first byte says whether the text is elsewhere.
        if self.types.size(&object.of)? != 24 {
            return None;
        }
        let bytes = self.bytes(&object.place, object.at, 24).ok()?;
        let number = |from: usize| {
            let bytes = bytes.get(from..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let first = *bytes.first()?;
        if first & 1 == 1 {
            return self.text_of(number(16)?, number(8)?);
        }
        let Place::Memory(start) = object.place else {
            return None;
        };
        let start = start.wrapping_add(object.at).wrapping_add(1);
        let length = u64::from(first >> 1);
        (length <= 22).then(|| self.text_of(start, length))?
    }

    fn cpp_vector(&self, object: &Object<'data>, shown: &str, depth: usize) -> Option<Value> {
        let start = self.first(object, &["_M_start", "__begin_"])?;
        // Bits are packed.
        let element = self.is_pointer(&start.of)??;
        let start = self.number(&start)?;
        let end = self.first_number(object, &["_M_finish", "__end_"])?;
        let size = self.types.size(&element).filter(|size| *size > 0)?;
        let length = end.checked_sub(start)?.checked_div(size)?;
        self.row(shown, start, length, &element, depth)
    }

    /// What a smart pointer points to.
    fn held(&self, shown: &str, pointer: &Object<'data>, depth: usize) -> Option<Value> {
        let target = self.is_pointer(&pointer.of)?;
        let address = self.number(pointer)?;
        if address == 0 {
            return Some(self.single(shown, None));
        }
        let is_scalar = target.as_ref().is_some_and(|of| {
            let container = self.types.plain(of).is_some_and(|plain| {
                matches!(&plain.kind, Kind::Record(_))
                    && plain
                        .name
                        .as_deref()
                        .is_some_and(|name| name.starts_with("basic_string<"))
            });
            container || !self.is_aggregate(of)
        });
        let value = match target {
            // One level of structs is shown: a list of smart pointers would never end.
            Some(of) if is_scalar || depth < 2 => {
                let place = Place::Memory(address);
                let target = Object { of, place, at: 0 };
                let inner = depth.saturating_add(2);
                Value::Reference {
                    address,
                    target: Box::new(self.value(&target, inner)),
                }
            }
            target => Value::Pointer(self.pointer(address, target.as_ref())),
        };
        Some(self.single(shown, Some(value)))
    }

    /// The nodes of a red-black tree in order.
    fn tree(
        &self,
        object: &Object<'data>,
        shown: &str,
        is_map: bool,
        depth: usize,
    ) -> Option<Value> {
        let (length, first, of, libstdcxx) = match self.field(object, "_M_t") {
            Some(tree) => {
                let length = self.deep_number(&tree, &["_M_node_count"])?;
                let header = self.deep(&tree, &["_M_header"])?;
                let first = self.field_number(&header, &["_M_left"])?;
                (length, first, self.parameter(&tree.of, &["_Val"])?, true)
            }
            None => {
                let tree = self.field(object, "__tree_")?;
                let length = self
                    .field_number(&tree, &["__size_"])
                    .or_else(|| self.field_number(&tree, &["__pair3_", "__value_"]))?;
                let first = self.field_number(&tree, &["__begin_node_"])?;
                (length, first, self.parameter(&tree.of, &["_Tp"])?, false)
            }
        };
        let mut node = first;
        let mut left = length;
        let next = || {
            let here = node;
            left = left.checked_sub(1)?;
            if left > 0 {
                node = self.next_node(here, libstdcxx)?;
            }
            Some(Object {
                of: of.clone(),
                place: Place::Memory(here.wrapping_add(TREE_VALUE)),
                at: 0,
            })
        };
        let nodes = std::iter::from_fn(next);
        Some(self.held_by_nodes(shown, length, nodes, is_map, depth))
    }

    /// The node after `node` in order.
    fn next_node(&self, node: u64, libstdcxx: bool) -> Option<u64> {
        let (parent, left, right) = if libstdcxx { (8, 16, 24) } else { (16, 0, 8) };
        let word = |node: u64, at: u64| self.word_at(node.wrapping_add(at));
        let mut here = word(node, right)?;
        if here != 0 {
            for _ in 0..STEPS {
                match word(here, left)? {
                    0 => return Some(here),
                    next => here = next,
                }
            }
            return None;
        }
        let mut below = node;
        here = word(node, parent)?;
        for _ in 0..STEPS {
            if word(here, right)? != below {
                return Some(here);
            }
            below = here;
            here = word(here, parent)?;
        }
        None
    }

    /// The nodes of a hash table.
    fn table(
        &self,
        object: &Object<'data>,
        shown: &str,
        is_map: bool,
        depth: usize,
    ) -> Option<Value> {
        let (length, first, of, value_at) = match self.field(object, "_M_h") {
            Some(table) => {
                let length = self.field_number(&table, &["_M_element_count"])?;
                let first = self.field_number(&table, &["_M_before_begin", "_M_nxt"])?;
                (length, first, self.parameter(&table.of, &["_Value"])?, 8)
            }
            None => {
                let table = self.field(object, "__table_")?;
                let length = self
                    .field_number(&table, &["__size_"])
                    .or_else(|| self.field_number(&table, &["__p2_", "__value_"]))?;
                let first = self
                    .field_number(&table, &["__first_node_", "__next_"])
                    .or_else(|| self.field_number(&table, &["__p1_", "__value_", "__next_"]))?;
                (length, first, self.parameter(&table.of, &["_Tp"])?, 16)
            }
        };
        let nodes = self.linked(first, value_at, of, length);
        Some(self.held_by_nodes(shown, length, nodes, is_map, depth))
    }

    fn list(&self, object: &Object<'data>, shown: &str, depth: usize) -> Option<Value> {
        let node = self.deep(object, &["_M_node"])?;
        let length = self.deep_number(object, &["_M_size"])?;
        let first = self.field_number(&node, &["_M_next"])?;
        let of = self.parameter(&object.of, &["_Tp"])?;
        let nodes = self.linked(first, 16, of, length);
        Some(self.held_by_nodes(shown, length, nodes, false, depth))
    }

    /// Nodes that begin with the address of the next one.
    fn linked(
        &self,
        first: u64,
        value_at: u64,
        of: Die<'data>,
        length: u64,
    ) -> impl Iterator<Item = Object<'data>> {
        let mut node = first;
        let mut left = length.min(FIRST as u64);
        std::iter::from_fn(move || {
            let here = node;
            left = left.checked_sub(1)?;
            if here == 0 {
                return None;
            }
            node = self.word_at(here).unwrap_or(0);
            Some(Object {
                of: of.clone(),
                place: Place::Memory(here.wrapping_add(value_at)),
                at: 0,
            })
        })
    }

    fn held_by_nodes(
        &self,
        shown: &str,
        length: u64,
        nodes: impl Iterator<Item = Object<'data>>,
        is_map: bool,
        depth: usize,
    ) -> Value {
        let nodes = nodes.take(FIRST);
        if !is_map {
            return self.filled(shown, Some(length), nodes, depth);
        }
        let pair = |node: Object<'data>| {
            // libc++ wraps its pairs.
            let node = self
                .field(&node, "__cc_")
                .or_else(|| self.field(&node, "__cc"))
                .unwrap_or(node);
            Some((self.field(&node, "first")?, self.field(&node, "second")?))
        };
        self.map(shown, Some(length), nodes.map_while(pair), depth)
    }

    /// Calls `found` for each member with one of these names, however deep in the object.
    fn each_named(
        &self,
        object: &Object<'data>,
        names: &[&str],
        depth: usize,
        found: &mut dyn FnMut(Object<'data>),
    ) {
        let plain = self.types.plain(&object.of);
        let Some(Kind::Record(record)) = plain.as_ref().map(|plain| &plain.kind) else {
            return;
        };
        if depth > 8 {
            return;
        }
        for member in record.members.iter().take(16) {
            let Ok(inside) = self.locate(object, member) else {
                continue;
            };
            if member.is_static {
                continue;
            }
            if member
                .name
                .as_deref()
                .is_some_and(|name| names.contains(&name))
            {
                found(inside.clone());
            }
            self.each_named(&inside, names, depth.saturating_add(1), found);
        }
    }

    /// The first member with one of these names, however deep in the object.
    fn deep(&self, object: &Object<'data>, names: &[&str]) -> Option<Object<'data>> {
        let mut first = None;
        self.each_named(object, names, 0, &mut |found| {
            first.get_or_insert(found);
        });
        first
    }

    fn deep_number(&self, object: &Object<'data>, names: &[&str]) -> Option<u64> {
        self.number(&self.deep(object, names)?)
    }

    fn first(&self, object: &Object<'data>, names: &[&str]) -> Option<Object<'data>> {
        self.deep(object, names)
    }

    fn first_number(&self, object: &Object<'data>, names: &[&str]) -> Option<u64> {
        self.deep_number(object, names)
    }
}
