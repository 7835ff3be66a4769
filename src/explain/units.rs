//! Numbers for people.

use super::Amount;

/// Bytes: `1.5 MB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Three significant digits: `987`, `61.7 k`, `3.86 G`.
pub fn count(n: u64) -> String {
    if n < 1000 {
        return n.to_string();
    }
    let units = ["k", "M", "G", "T", "P", "E"];
    let mut value = n as f64 / 1e3;
    let mut unit = 0;
    // What would round to 1000 takes the next unit.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.*} {}", digits(value), units[unit])
}

/// Digits behind the point that make three significant ones of a number of 1 to 999.
fn digits(value: f64) -> usize {
    match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    }
}

/// A number as by [`count`], or an expression as it is.
pub fn amount(a: &Amount) -> String {
    match a {
        Amount::Number(n) => count(n.unsigned_abs()),
        Amount::Expression(e) => e.clone(),
    }
}

/// Bytes as by [`size`], or an expression as it is.
pub fn amount_of_bytes(a: &Amount) -> String {
    match a {
        Amount::Number(n) => size(n.unsigned_abs()),
        Amount::Expression(e) => format!("{e} B"),
    }
}

/// Three digits after the point, four significant ones below 0.1.
pub fn ms(value: f64) -> String {
    if value < 0.1 { format!("{value:.5} ms") } else { format!("{value:.3} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        let of = [0, 999, 1000, 61_706, 999_499, 999_500, 3_857_973_248, 9_999_000];
        let texts = ["0", "999", "1.00 k", "61.7 k", "999 k", "1.00 M", "3.86 G", "10.0 M"];
        assert_eq!(of.map(count), texts);
        assert_eq!(amount(&Amount::Expression("2*batch".into())), "2*batch");
        assert_eq!(size(1_500_000), "1.5 MB");
        assert_eq!([ms(0.01234567), ms(1.5)], ["0.01235 ms", "1.500 ms"]);
    }
}
