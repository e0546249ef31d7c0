//! An amount with its unit as people say it: `1,234.5 µs` is `1.23 ms`, `9,900,000,000 B` is `9.9 GB`.
//! For lines that are read; JSON keeps what was measured.

use super::number;
use super::table::cell_text;

/// Units that grow into others: their steps, smallest first, each in the smallest.
const TIMES: [(&str, f64); 3] = [("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
const SIZES: [(&str, f64); 4] = [("B", 1.0), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9)];
/// CPU of a whole process, in µs a second, is a share of a core from here on.
const SHARE_FROM: f64 = 1_000.0;

/// Three digits that mean something, in the unit that keeps them short.
pub fn amount(value: f64, unit: &str) -> String {
    let (base, suffix) = unit.strip_suffix("/s").filter(|base| *base == "B").map_or((unit, ""), |base| (base, "/s"));
    if unit == "µs/s" && value.abs() >= SHARE_FROM {
        return format!("{} % of a core", digits(value / 1e4));
    }
    let steps: &[(&str, f64)] = match base {
        "µs" | "ms" | "s" => &TIMES,
        "B" => &SIZES,
        _ => return format!("{} {unit}", digits(value)).trim_end().to_owned(),
    };
    let smallest = value * steps.iter().find(|(name, _)| *name == base).map_or(1.0, |(_, size)| *size);
    let step = steps.iter().rev().find(|(_, size)| smallest.abs() >= *size).unwrap_or(&steps[0]);
    // Nothing at all is nothing in its own unit.
    let (name, size) = if smallest == 0.0 { (base, 1.0) } else { *step };
    format!("{} {name}{suffix}", digits(smallest / size))
}

/// What is whole is said whole.
fn digits(value: f64) -> String {
    if value.fract() == 0.0 { number(value) } else { cell_text(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_in_the_unit_that_keeps_them_short() {
        let cases = [
            (0.4, "µs", "0.40 µs"),
            (1_234.5, "µs", "1.23 ms"),
            (2_500_000.0, "µs", "2.50 s"),
            (0.02, "ms", "20 µs"),
            (63.44, "s", "63.4 s"),
            (0.85, "s", "850 ms"),
            (0.0, "s", "0 s"),
            (283.4, "B", "283 B"),
            (9_900_000_000.0, "B", "9.90 GB"),
            (1_500_000.0, "B/s", "1.50 MB/s"),
        ];

        for (value, unit, said) in cases {
            assert_eq!(amount(value, unit), said);
        }
    }

    #[test]
    fn a_process_uses_a_share_of_a_core_and_a_connection_microseconds() {
        assert_eq!(amount(9_613.0, "µs/s"), "0.96 % of a core");
        assert_eq!(amount(0.57, "µs/s"), "0.57 µs/s");
        assert_eq!(amount(10_912_345.6, "/s"), "10,912,346 /s");
        assert_eq!(amount(0.79, "×"), "0.79 ×");
        assert_eq!(amount(19_000.0, ""), "19,000");
    }
}
