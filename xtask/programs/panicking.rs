// Panics on an index out of range; built with `-C panic=abort`.

#[inline(always)]
fn pick(values: &[u32], index: usize) -> u32 {
    values[index]
}

#[inline(never)]
fn average(values: &[u32], last: usize) -> u32 {
    (0..=last).map(|index| pick(values, index)).sum::<u32>() / values.len() as u32
}

fn main() {
    let values: Vec<u32> = std::env::args().map(|word| word.len() as u32).collect();
    println!("{}", average(&values, values.len()));
}
