//! Numbers for people.

/// `512 B`, `1.5 KiB`, `2.0 GiB`: binary units, one decimal.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut name = "B";
    for unit in UNITS {
        (value, name) = (value / 1024.0, unit);
        // Otherwise 1023.95 would be printed as 1024.0.
        if value < 1023.95 {
            break;
        }
    }
    format!("{value:.1} {name}")
}

/// `part` of `whole` in percent; never rounded up to 100 if something is missing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part >= whole {
        return "100 %".to_owned();
    }
    let tenths = (u128::from(part) * 1000 / u128::from(whole)) as u64;
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// `1,234,567`.
#[must_use]
pub fn grouped_digits(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{bytes, percent};

    #[test]
    fn counts_have_separators() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (count, expected) in table {
            assert_eq!(super::grouped_digits(count), expected);
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1536 * 1024 * 1024, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in table {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(percent(999_999, 1_000_000), "99.9 %");
        assert_eq!(percent(1, 0), "100 %");
        assert_eq!(percent(60, 100), "60.0 %");
    }
}
