// Types of Rust, in arguments and locals of several functions, at the time of a crash.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};

static mut NOWHERE: *mut u32 = 8 as *mut u32;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level { Low = -1, High = 300 }
pub enum Shape { Dot, Circle(f64), Rect { w: u32, h: u32 }, Named(String) }
pub struct Order<'a> { name: String, who: &'a str, items: Vec<u32>, shape: Shape, pair: (i32, char), next: Option<Box<Order<'a>>> }
pub struct Unit;
pub struct Meters(f32);
pub union Bits { float: f32, integer: u32 }
pub trait Speaks { fn speak(&self) -> usize; }
impl Speaks for Meters { fn speak(&self) -> usize { self.0 as usize } }

#[inline(never)]
fn crash(code: u32) -> u32 {
    unsafe { NOWHERE.write_volatile(code) };
    code
}

#[inline(never)]
fn scalars(i: i8, u: u16, big: i128, float: f64, letter: char, yes: bool, size: usize, level: Level) -> u32 {
    let tuple = (i, u, letter);
    let array = [1u64, 2, 3];
    let nested = [[0u8; 4]; 3];
    let bytes = b"bytes";
    let unit = ();
    let pointer: *const u16 = &u;
    let function: fn(u32) -> u32 = crash;
    let range = 3..size;
    let wide = u128::MAX - big as u128;
    let closure = |x: u32| crash(x + tuple.1 as u32 + array[0] as u32);
    let result = closure(size as u32);
    result + nested[0][0] as u32 + bytes[0] as u32 + (unit == ()) as u32 + pointer as u32 + function as usize as u32
        + range.start as u32 + wide as u32 + float as u32 + yes as u32 + (level == Level::Low) as u32
}

#[inline(never)]
fn enums(shape: &Shape, option: Option<u32>, text: Option<&str>, none: Option<Box<u32>>, outcome: Result<u8, String>) -> u32 {
    let shapes = vec![Shape::Dot, Shape::Circle(1.5), Shape::Rect { w: 2, h: 3 }, Shape::Named("n".into())];
    let nested: Option<Option<bool>> = Some(None);
    let error: Result<(), std::io::Error> = Err(std::io::Error::from_raw_os_error(2));
    let ordering = std::cmp::Ordering::Less;
    let bits = Bits { integer: 0x3fc0_0000 };
    let result = scalars(-4, 50_000, -(1 << 100), 2.5, 'ß', true, 77, Level::High);
    let inside = match shape { Shape::Rect { w, h } => w + h, _ => 0 };
    result + shapes.len() as u32 + nested.is_some() as u32 + error.is_err() as u32 + (ordering as i8) as u32
        + unsafe { bits.integer } + inside + option.unwrap_or(1) + text.map_or(0, str::len) as u32
        + none.map_or(0, |n| *n) + outcome.unwrap_or(3) as u32
}

#[inline(never)]
fn containers(order: &mut Order, slice: &[u32], name: &str, dynamic: &dyn Speaks) -> u32 {
    let map: HashMap<u32, &str> = [(1, "one"), (2, "two")].into_iter().collect();
    let tree: BTreeMap<String, u32> = [("k".to_owned(), 9)].into_iter().collect();
    let set: HashSet<char> = ['a'].into_iter().collect();
    let deque: VecDeque<u8> = [1, 2, 3].into();
    let rc = Rc::new(RefCell::new(vec![1, 2]));
    let weak: Weak<_> = Rc::downgrade(&rc);
    let arc = Arc::new(Mutex::new(String::from("locked")));
    let cell = Cell::new(5);
    let boxed: Box<dyn Speaks> = Box::new(Meters(2.0));
    let unit = Unit;
    let strings = vec![String::new(), "s".to_owned()];
    let first = rc.borrow()[0];
    let locked = arc.lock().unwrap().len() as u32;
    let result = enums(&order.shape, Some(4), Some("text"), None, Err("bad".into()));
    let _ = unit;
    result + map.len() as u32 + tree.len() as u32 + set.len() as u32 + deque.len() as u32 + first
        + weak.strong_count() as u32 + locked + cell.get() + boxed.speak() as u32
        + slice[0] + name.len() as u32 + dynamic.speak() as u32 + strings.len() as u32 + order.items[0]
        + order.name.len() as u32 + order.who.len() as u32 + order.pair.0 as u32 + order.next.is_some() as u32
}

fn main() {
    let inner = Order { name: "inner".into(), who: "you", items: vec![], shape: Shape::Circle(0.5), pair: (0, 'x'), next: None };
    let mut order = Order { name: "order".into(), who: "me", items: vec![1, 2, 3], shape: Shape::Rect { w: 1, h: 2 }, pair: (4, 'ä'), next: Some(Box::new(inner)) };
    let numbers = [5, 6, 7];
    std::process::exit(containers(&mut order, &numbers[1..], "name", &Meters(1.5)) as i32);
}
