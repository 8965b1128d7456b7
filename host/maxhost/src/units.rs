//! Durations and sizes as people write them: `2 s`, `64 MiB`.

use std::time::Duration;

/// Units of time, in milliseconds.
const TIME: [(&str, f64); 6] =
    [("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0), ("min", 60_000.0), ("h", 3_600_000.0), ("d", 86_400_000.0)];

/// Units of size, in bytes.
const SIZE: [(&str, f64); 7] = [
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
];

/// Parses a duration with its unit; fractions are rounded to milliseconds.
///
/// # Errors
/// In words, for whoever wrote it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = "a number with a unit (ms, s, m, h, d), such as \"2 s\"";
    let ms = scaled(text, &TIME, expected)?;
    // 10,000 years: any more is a slip of the pen, and would overflow deadlines.
    if ms > 3.2e14 {
        return Err(format!("'{text}' is too long a time"));
    }
    Ok(Duration::from_millis(ms as u64))
}

/// Parses a size with its unit, in bytes.
///
/// # Errors
/// In words, for whoever wrote it.
pub fn size(text: &str) -> Result<u64, String> {
    let bytes = scaled(text, &SIZE, "a number with a unit (B, KiB, MiB, GiB, KB, MB, GB), such as \"64 MiB\"")?;
    if bytes > 9e15 {
        return Err(format!("'{text}' is too large a size"));
    }
    Ok(bytes as u64)
}

fn scaled(text: &str, units: &[(&str, f64)], expected: &str) -> Result<f64, String> {
    let wrong = || format!("'{text}' is not {expected}");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let number: f64 = text[..split].parse().map_err(|_| wrong())?;
    let unit = text[split..].trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    Ok((number * factor).round())
}

/// A duration as a person reads it: `1.2 s`, `3 min 5 s`.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
        _ => format!("{} d {} h", ms / 86_400_000, ms / 3_600_000 % 24),
    }
}

/// A size as a person reads it: `3.4 MiB`.
pub fn show_size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_take_units_with_and_without_a_space() {
        for (text, ms) in [("2 s", 2_000), ("250ms", 250), ("1.5 s", 1_500), ("10 min", 600_000), ("24h", 86_400_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in ["", "5", "s", "-1 s", "1 fortnight", "1e9 s", "1.2.3 s", "99999999999999 d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_tell_thousands_from_powers_of_two() {
        for (text, bytes) in [("64 MiB", 64 << 20), ("1KB", 1_000), ("1 KiB", 1_024), ("0 B", 0), ("1.5 GiB", 3 << 29)]
        {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for text in ["64", "64 mib", "MiB", "1 TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_round_figures() {
        assert_eq!(show_duration(Duration::from_millis(1_230)), "1.2 s");
        assert_eq!(show_duration(Duration::from_secs(185)), "3 min 5 s");
        assert_eq!(show_size(3_565_158), "3.4 MiB");
    }
}
