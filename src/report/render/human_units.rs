//! Human-readable numbers: grouped thousands, bytes in binary units, durations in a suitable unit.
//!
//! Guarantees:
//! - Integer arithmetic only.
//! - Numbers are truncated, never rounded up, so that a table never shows more than the exact value.
//!
//! Leaves to csv and json: the exact numbers for programs.

/// Groups digits in threes: `1,234,567`.
pub fn grouped_digits(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Groups digits and always shows the sign: `+1,234`, `-5`.
pub fn signed_digits(number: i128) -> String {
    let sign = if number < 0 { "-" } else { "+" };
    format!("{sign}{}", grouped_digits(u64::try_from(number.unsigned_abs()).unwrap_or(u64::MAX)))
}

/// Groups the digits of a number that may be negative: `1,234`, `-5`.
pub fn grouped_signed(number: i128) -> String {
    if number < 0 { signed_digits(number) } else { signed_digits(number).split_off(1) }
}

/// Bytes in the largest binary unit that does not exceed them: `512 B`, `1.5 KiB`, `12.0 MiB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, bits)| bytes >> bits > 0) {
        Some((unit, bits)) => format!("{} {unit}", one_decimal(u128::from(bytes), 1 << bits)),
        None => format!("{bytes} B"),
    }
}

/// Nanoseconds in a suitable unit: `850 us`, `12 ms`, `1.2 s`, `2 m 03 s`, `5 h 12 m`.
pub fn human_duration(nanoseconds: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = nanoseconds / SECOND;
    match nanoseconds {
        0 => "0 s".to_owned(),
        1..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{} us", nanoseconds / 1_000),
        1_000_000..SECOND => format!("{} ms", nanoseconds / 1_000_000),
        _ if seconds < 60 => format!("{} s", one_decimal(u128::from(nanoseconds), u128::from(SECOND))),
        _ if seconds < 3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", grouped_digits(seconds / 3_600), seconds % 3_600 / 60),
    }
}

/// `number / unit` with one decimal digit, truncated.
fn one_decimal(number: u128, unit: u128) -> String {
    let tenths = number * 10 / unit;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(grouped_digits(number), shown);
        }
        for (number, with_sign, without) in [(0, "+0", "0"), (1_234, "+1,234", "1,234"), (-5_000, "-5,000", "-5,000")] {
            assert_eq!((signed_digits(number), grouped_signed(number)), (with_sign.to_owned(), without.to_owned()));
        }
    }

    #[test]
    fn sizes_are_binary_and_truncated() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (16_777_216 + 838_860, "16.7 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(human_size(bytes), shown);
        }
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        for (nanoseconds, shown) in [
            (0, "0 s"),
            (999, "999 ns"),
            (850_000, "850 us"),
            (12_999_999, "12 ms"),
            (999_999_999, "999 ms"),
            (1_299_999_999, "1.2 s"),
            (59_993_292_184, "59.9 s"),
            (123_000_000_000, "2 m 03 s"),
            (18_720_000_000_000, "5 h 12 m"),
            (u64::MAX, "5,124,095 h 34 m"),
        ] {
            assert_eq!(human_duration(nanoseconds), shown);
        }
    }
}
