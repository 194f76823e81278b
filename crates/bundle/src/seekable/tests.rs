use std::io::Write;
use std::process::{Command, Stdio};

use cdh_elfcore::ByteSource;
use proptest::prelude::*;

use super::*;

/// Text that compresses, noise that does not, and zeroes.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..len)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match (at / 1000) % 3 {
                0 => b'a' + (at % 7) as u8,
                1 => (state >> 24) as u8,
                _ => 0,
            }
        })
        .collect()
}

fn compress(data: &[u8], frame: usize) -> Vec<u8> {
    let mut writer = SeekableWriter::new(Vec::new(), 1, frame).unwrap();
    writer.write_all(data).unwrap();
    let (out, stats) = writer.finish().unwrap();
    assert_eq!(
        stats,
        SeekableStats {
            plain: data.len() as u64,
            stored: out.len() as u64
        }
    );
    out
}

fn read_all(source: &dyn ByteSource) -> Vec<u8> {
    let mut data = vec![0; source.len() as usize];
    assert_eq!(source.read_at(0, &mut data).unwrap(), data.len());
    data
}

#[test]
fn seek_table_matches_the_worked_example() {
    let out = compress(b"abc", 1024);
    let frame = out.len() - 25;
    let mut expected = vec![0x5e, 0x2a, 0x4d, 0x18, 17, 0, 0, 0, frame as u8, 0, 0, 0];
    expected.extend([3, 0, 0, 0, 1, 0, 0, 0, 0, 0xb1, 0xea, 0x92, 0x8f]);
    assert_eq!(out[frame..], expected);
}

#[test]
fn seekable_stream_is_readable_by_zstd() {
    for data in [sample(0), sample(1), sample(100_000), vec![0; 50_000]] {
        let mut child = Command::new("zstd")
            .args(["-d", "-c", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let stream = compress(&data, 4096);
        let feeder = std::thread::spawn(move || input.write_all(&stream));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, data);
    }
}

#[test]
fn write_zeroes_stores_almost_nothing() {
    let mut writer = SeekableWriter::new(Vec::new(), 1, SEEKABLE_FRAME).unwrap();
    writer.write_all(b"head").unwrap();
    writer.write_zeroes(1 << 30).unwrap();
    writer.write_all(b"tail").unwrap();
    let (out, stats) = writer.finish().unwrap();
    assert_eq!(stats.plain, (1 << 30) + 8);
    assert!(out.len() < 200 << 10, "{}", out.len());
    let reader = SeekableReader::open(out).unwrap();
    let mut tail = [1; 6];
    assert_eq!(reader.read_at((1 << 30) + 2, &mut tail).unwrap(), 6);
    assert_eq!(&tail, b"\0\0tail");
}

#[test]
fn write_frame_stores_precompressed_frames() {
    let frame = zstd::bulk::compress(b"second", 3).unwrap();
    let mut writer = SeekableWriter::new(Vec::new(), 1, 100).unwrap();
    writer.write_all(b"first ").unwrap();
    writer.write_frame(&frame, 6).unwrap();
    writer.write_all(b" third").unwrap();
    for (bytes, len) in [(&frame[..], 7), (&frame[1..], 6), (&b""[..], 0)] {
        assert!(writer.write_frame(bytes, len).is_err());
    }
    let doubled = [frame.as_slice(), frame.as_slice()].concat();
    assert!(writer.write_frame(&doubled, 6).is_err());
    let (out, _) = writer.finish().unwrap();
    assert_eq!(
        read_all(&SeekableReader::open(out).unwrap()),
        b"first second third"
    );
}

#[test]
fn recover_reads_the_complete_frames() {
    let data = sample(50_000);
    let whole = compress(&data, 10_000);
    let frames = SeekableReader::open(whole.clone()).unwrap().stored_len() as usize;
    assert!(matches!(
        SeekableReader::open(whole[..frames].to_vec()),
        Err(SeekableError::NoTable)
    ));
    let mut last = 0;
    for cut in (0..=whole.len()).step_by(97) {
        let recovered = SeekableReader::recover(whole[..cut].to_vec()).unwrap();
        let plain = read_all(&recovered);
        assert_eq!(plain, data[..plain.len()]);
        assert_eq!(plain.len() % 10_000, 0);
        assert!(plain.len() >= last);
        last = plain.len();
    }
    let recovered = SeekableReader::recover(whole[..frames].to_vec()).unwrap();
    assert_eq!(recovered.plain_len(), 50_000);
}

#[test]
fn recover_of_a_foreign_zstd_stream_is_empty() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&sample(1000)).unwrap();
    let recovered = SeekableReader::recover(encoder.finish().unwrap()).unwrap();
    assert_eq!(recovered.plain_len(), 0);
    assert_eq!(
        SeekableReader::recover(b"not zstd".to_vec())
            .unwrap()
            .plain_len(),
        0
    );
}

#[test]
fn seek_table_with_checksums_is_read() {
    let frame = zstd::bulk::compress(b"abc", 1).unwrap();
    let mut out = frame.clone();
    out.extend(TABLE_MAGIC);
    out.extend(21_u32.to_le_bytes());
    out.extend((frame.len() as u32).to_le_bytes());
    out.extend(3_u32.to_le_bytes());
    out.extend([9; 4]);
    out.extend(1_u32.to_le_bytes());
    out.push(0x80);
    out.extend(FOOTER_MAGIC);
    let reader = SeekableReader::open(out).unwrap();
    assert_eq!(read_all(&reader), b"abc");
    // We do not check the table's checksums, and this frame has none.
    assert!(!reader.is_verified());
}

#[test]
fn seekable_reader_rejects_a_flipped_bit_in_any_frame() {
    let data = sample(5000);
    let stream = compress(&data, 500);
    let reader = SeekableReader::open(stream.clone()).unwrap();
    assert_eq!(read_all(&reader), data);
    assert!(reader.is_verified());
    let frames = reader.stored_len() as usize;
    for at in 0..frames {
        for bit in 0..8 {
            let mut hurt = stream.clone();
            hurt[at] ^= 1 << bit;
            let reader = SeekableReader::open(hurt).unwrap();
            let mut found = vec![0; data.len()];
            match reader.read_at(0, &mut found) {
                Ok(_) => assert_eq!(found, data, "byte {at} bit {bit}"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
        }
    }
}

#[test]
fn seekable_reader_refuses_a_huge_frame_before_allocating() {
    let mut out = Vec::new();
    out.extend(TABLE_MAGIC);
    out.extend(17_u32.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out.extend(u32::MAX.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.push(0);
    out.extend(FOOTER_MAGIC);
    assert!(matches!(
        SeekableReader::open(out),
        Err(SeekableError::FrameTooLarge { .. })
    ));
}

#[test]
fn seekable_reader_works_from_several_threads() {
    let data = sample(200_000);
    let reader = SeekableReader::open(compress(&data, 1000)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (reader, data) = (&reader, &data);
            scope.spawn(move || {
                for step in 0..200_usize {
                    let at = (step * 7919 + thread * 31) % 199_000;
                    let mut buf = [0; 1000];
                    assert_eq!(reader.read_at(at as u64, &mut buf).unwrap(), 1000);
                    assert_eq!(buf, data[at..at + 1000]);
                }
            });
        }
    });
}

#[test]
fn seekable_writer_rejects_frame_sizes_out_of_range() {
    assert!(SeekableWriter::new(Vec::new(), 1, 0).is_err());
    assert!(SeekableWriter::new(Vec::new(), 1, (64 << 20) + 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn seekable_reader_returns_the_plain_bytes_of_any_window(
        len in 0_usize..5000, frame in 1_usize..700, at in 0_u64..6000, count in 0_usize..3000,
    ) {
        let data = sample(len);
        let reader = SeekableReader::open(compress(&data, frame)).unwrap();
        let mut buf = vec![0; count];
        let found = reader.read_at(at, &mut buf).unwrap();
        let expected = data.get(at as usize..).unwrap_or_default();
        prop_assert_eq!(&buf[..found], &expected[..count.min(expected.len())]);
    }

    #[test]
    fn seekable_reader_does_not_panic_on_damaged_streams(
        at in 0_usize..2000, value: u8, cut in 0_usize..2000, at_end in 0_usize..40,
    ) {
        let mut stream = compress(&sample(3000), 500);
        let end = stream.len();
        for place in [at % end, end - 1 - at_end] {
            let mut hurt = stream.clone();
            hurt[place] = value;
            if let Ok(reader) = SeekableReader::open(hurt.clone()) {
                let mut buf = vec![0; 4000];
                let _ = reader.read_at(0, &mut buf);
            }
            let recovered = SeekableReader::recover(hurt).unwrap();
            let _ = recovered.read_at(0, &mut [0; 4000]);
        }
        stream.truncate(cut % end);
        prop_assert!(SeekableReader::open(stream).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes: Vec<u8>) {
        let _ = SeekableReader::open(bytes.clone());
        let _ = SeekableReader::recover(bytes.clone());
        bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
        let _ = SeekableReader::recover(bytes.clone());
        bytes.extend(FOOTER_MAGIC);
        let _ = SeekableReader::open(bytes);
    }
}
