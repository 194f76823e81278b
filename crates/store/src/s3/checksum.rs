//! Checksums in the formats of S3: CRC-64/NVME and MD5, base64 in headers, hex in etags.

use crc_fast::CrcAlgorithm::Crc64Nvme;
use md5::{Digest as _, Md5};

/// CRC-64/NVME of some bytes. It is the only one of S3's CRCs that always covers the complete
/// object, however many parts it had.
pub(super) fn crc64(data: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Nvme, data)
}

/// CRC of two concatenated runs of bytes, from the CRC of each.
pub(super) fn combine(first: u64, second: u64, second_len: u64) -> u64 {
    crc_fast::checksum_combine(Crc64Nvme, first, second, second_len)
}

/// In the format of the header.
pub(super) fn crc64_header(crc: u64) -> String {
    base64_simd::STANDARD.encode_to_string(crc.to_be_bytes())
}

/// From a header.
pub(super) fn parse_crc64(text: &str) -> Option<u64> {
    let bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// MD5 of some bytes.
pub(super) fn md5(data: &[u8]) -> [u8; 16] {
    Md5::digest(data).into()
}

/// In the format of the header.
pub(super) fn md5_header(md5: [u8; 16]) -> String {
    base64_simd::STANDARD.encode_to_string(md5)
}

/// In an etag.
pub(super) fn md5_etag(md5: [u8; 16]) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// From an etag.
pub(super) fn parse_md5_etag(etag: &str) -> Option<[u8; 16]> {
    let mut md5 = [0; 16];
    if etag.len() != 32 {
        return None;
    }
    for (byte, digits) in md5.iter_mut().zip(etag.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(md5)
}

/// The etag of an object that was uploaded in parts with these MD5s: the MD5 of them, and their
/// number.
pub(super) fn multipart_etag(parts: &[[u8; 16]]) -> String {
    format!("{}-{}", md5_etag(md5(&parts.concat())), parts.len())
}

/// Without the quotes that surround it in headers.
pub(super) fn bare_etag(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_that_of_the_catalogue_and_can_be_combined() {
        // "Check" of CRC-64/NVME in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc64(b"123456789"), 0xae8b_1486_0a79_9888);
        let whole = combine(crc64(b"1234"), crc64(b"56789"), 5);
        assert_eq!(whole, crc64(b"123456789"));
        assert_eq!(crc64_header(whole), "rosUhgp5mIg=");
        assert_eq!(parse_crc64("rosUhgp5mIg="), Some(whole));
        assert_eq!((parse_crc64("!"), parse_crc64("AAAA")), (None, None));
    }

    #[test]
    fn etags_of_parts_are_md5_of_md5s() {
        // Observed with SeaweedFS 4.48 for five MiB of `a` and the four bytes `tail`.
        let parts = [md5(&vec![b'a'; 5 << 20]), md5(b"tail")];
        assert_eq!(multipart_etag(&parts), "30dcfd3901d1c613b7fb532281748544-2");
        let etag = md5_etag(md5(b"hello"));
        assert_eq!(etag, "5d41402abc4b2a76b9719d911017c592");
        assert_eq!(parse_md5_etag(&etag), Some(md5(b"hello")));
        assert_eq!(md5_header(md5(b"hello")), "XUFAKrxLKna5cZ2REBfFkg==");
        assert_eq!(parse_md5_etag("30dcfd3901d1c613b7fb532281748544-2"), None);
    }
}
