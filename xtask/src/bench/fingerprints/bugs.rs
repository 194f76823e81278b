// Ten bugs: `bugs NUMBER main|thread`. Functions are kept apart as large ones are.
use std::collections::HashMap;
use std::hint::black_box;

#[cfg(v2)]
#[inline(never)]
fn note(n: usize) {
    let mut history = [0_usize; 512];
    history.iter_mut().for_each(|slot| *slot = black_box(n));
    black_box(history);
}
#[cfg(not(v2))]
#[inline(always)]
fn note(n: usize) {
    black_box(n);
}

mod store {
    use super::note;
    use std::hint::black_box;
    pub struct Table {
        pub rows: Vec<u64>,
    }
    impl Table {
        #[inline(never)]
        pub fn row(&self, n: usize) -> u64 {
            let row = self.rows[black_box(n)];
            note(1);
            row
        }
    }
    pub trait Load {
        fn load(&self, n: usize) -> u64;
    }
    impl Load for Table {
        #[inline(never)]
        fn load(&self, n: usize) -> u64 {
            let row = *self.rows.get(black_box(n)).expect("a row");
            note(2);
            row
        }
    }
    #[inline(never)]
    pub fn parse(text: &str) -> u64 {
        let number = text.parse::<u64>().unwrap();
        note(3);
        number
    }
}
use store::{Load, Table};

#[inline(never)]
fn read_row() { black_box(Table { rows: vec![1] }.row(7)); note(4); }
#[inline(never)]
fn load_row() { black_box(Table { rows: vec![1] }.load(7)); note(5); }
#[inline(never)]
fn read_price() { black_box(store::parse(black_box("x"))); note(6); }
#[inline(never)]
fn read_count() { black_box(store::parse(black_box("-1"))); note(7); }
#[inline(never)]
fn look_up(map: &HashMap<String, u64>) -> u64 { let found = map["nothing"]; note(8); found }
#[inline(never)]
fn find_user() { black_box(look_up(&HashMap::new())); note(9); }
#[inline(never)]
fn add(a: &mut Vec<u64>) { let total: u64 = a.iter().map(|n| { assert!(*n > black_box(100), "small"); *n }).sum(); black_box(total); note(10); }
#[inline(never)]
fn sum_rows() { add(&mut vec![1, 2]); note(11); }
#[inline(never)]
fn read_raw(at: usize) -> u8 { let byte = unsafe { std::ptr::read_volatile(at as *const u8) }; note(12); byte }
#[inline(never)]
fn map_device() { black_box(read_raw(black_box(16))); note(13); }
#[inline(never)]
fn borrow_twice() { let cell = std::cell::RefCell::new(1); let first = cell.borrow_mut(); let second = cell.borrow_mut(); black_box((&first, &second)); note(14); }
#[inline(never)]
fn depth(n: usize) -> usize { let page = black_box([n; 64]); depth(page[3] + 1) + page[0] }
#[inline(never)]
fn walk() { black_box(depth(1)); note(15); }
#[inline(never)]
fn slice_text() { let text = black_box(String::from("äöü")); black_box(&text[black_box(1)..]); note(16); }

#[inline(never)]
fn dispatch(n: usize) {
    let bugs: [fn(); 10] = [read_row, load_row, read_price, read_count, find_user, sum_rows, map_device, borrow_twice, walk, slice_text];
    black_box(bugs)[n]();
    note(17);
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let n = words[1].parse().unwrap();
    if words.get(2).map(String::as_str) == Some("thread") {
        let thread = std::thread::spawn(move || { dispatch(n); note(18); });
        thread.join().unwrap();
    } else {
        dispatch(n);
    }
    note(19);
}
