//! Compares the core that was stored with what the kernel writes into the pipe. For tests.

use std::fs::File;
use std::io::{self, Read};

use super::core_source::fill;

/// Bytes compared at once.
const CHUNK: usize = 256 << 10;

/// The result of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// So many bytes are the same.
    Equal(u64),
    /// This is the first byte that differs, or that only one of them has.
    DiffersAt(u64),
}

/// Compares what follows the first `position` bytes of `stored` with the rest of `stream`.
///
/// # Errors
/// When one of them cannot be read.
pub(crate) fn compare(
    stored: &mut impl Read,
    position: u64,
    stream: &mut impl Read,
) -> io::Result<Comparison> {
    io::copy(&mut stored.by_ref().take(position), &mut io::sink())?;
    let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = position;
    loop {
        let count = fill(stored, &mut ours).map_err(|(_, error)| error)?;
        let other = fill(stream, &mut theirs).map_err(|(_, error)| error)?;
        let (ours, theirs) = (ours.get(..count), theirs.get(..other));
        let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
        if ours != theirs {
            let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            return Ok(Comparison::DiffersAt(at + same as u64));
        }
        at += count as u64;
        if count < CHUNK {
            return Ok(Comparison::Equal(at));
        }
    }
}

/// The plain core behind a file of frames, or the file itself.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn plain(file: File, compressed: bool) -> io::Result<Box<dyn Read>> {
    Ok(match compressed {
        true => Box::new(zstd::stream::read::Decoder::new(file)?),
        false => Box::new(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_told_by_its_place_in_the_core() {
        let core: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
        let check = |stored: &[u8]| compare(&mut &*stored, 1000, &mut &core[1000..]).unwrap();
        assert_eq!(check(&core), Comparison::Equal(1_000_000));
        let mut other = core.clone();
        other[777_777] ^= 1;
        assert_eq!(check(&other), Comparison::DiffersAt(777_777));
        assert_eq!(check(&core[..999_999]), Comparison::DiffersAt(999_999));
    }
}
