//! Floats in the shortest of three widths that holds all their bits (RFC 8949 §4.1), also those of a NaN.

/// A float, in the narrowest width that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortest {
    Half(u16),
    Single(u32),
    Double(u64),
}

/// The narrowest width that holds all bits of a float.
pub fn shortest(bits: u64) -> Shortest {
    let Some(single) = narrow(bits, &DOUBLE_TO_SINGLE) else { return Shortest::Double(bits) };
    match narrow(single, &SINGLE_TO_HALF) {
        Some(half) => Shortest::Half(half as u16),
        None => Shortest::Single(single as u32),
    }
}

/// Widths of the parts of two formats of IEEE 754, the first of them wider.
struct Step {
    from: Format,
    to: Format,
}

struct Format {
    exponent: u32,
    mantissa: u32,
}

const HALF: Format = Format { exponent: 5, mantissa: 10 };
const SINGLE: Format = Format { exponent: 8, mantissa: 23 };
const DOUBLE: Format = Format { exponent: 11, mantissa: 52 };
const DOUBLE_TO_SINGLE: Step = Step { from: DOUBLE, to: SINGLE };
const SINGLE_TO_HALF: Step = Step { from: SINGLE, to: HALF };

impl Format {
    const fn bias(&self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    const fn top_exponent(&self) -> u64 {
        (1 << self.exponent) - 1
    }

    const fn join(&self, sign: u64, exponent: u64, mantissa: u64) -> u64 {
        (sign << (self.exponent + self.mantissa)) | (exponent << self.mantissa) | mantissa
    }
}

/// The bits in the narrower format, unless some of them do not fit.
fn narrow(bits: u64, step: &Step) -> Option<u64> {
    let (from, to) = (&step.from, &step.to);
    let sign = bits >> (from.exponent + from.mantissa);
    let exponent = (bits >> from.mantissa) & from.top_exponent();
    let mantissa = bits & ((1 << from.mantissa) - 1);
    let dropped = from.mantissa - to.mantissa;
    let fits = |mantissa: u64, dropped: u32| mantissa & ((1u64 << dropped) - 1) == 0;
    if exponent == from.top_exponent() {
        // Infinity, or NaN with its payload.
        return fits(mantissa, dropped).then(|| to.join(sign, to.top_exponent(), mantissa >> dropped));
    }
    if exponent == 0 {
        // Zero. What is subnormal in the wider format is too small for the narrower one.
        return (mantissa == 0).then(|| to.join(sign, 0, 0));
    }
    let power = exponent as i32 - from.bias();
    let narrowed = power + to.bias();
    if narrowed >= to.top_exponent() as i32 {
        return None;
    }
    if narrowed > 0 {
        return fits(mantissa, dropped).then(|| to.join(sign, narrowed as u64, mantissa >> dropped));
    }
    // Subnormal in the narrower format: the leading one becomes a bit of the mantissa.
    let whole = mantissa | (1 << from.mantissa);
    let dropped = dropped + narrowed.unsigned_abs() + 1;
    (dropped <= from.mantissa && fits(whole, dropped)).then(|| to.join(sign, 0, whole >> dropped))
}

/// The value of a half-precision float, bits of a NaN kept.
pub fn half_to_f64(half: u16) -> f64 {
    let sign = u64::from(half >> 15) << 63;
    let exponent = u64::from((half >> 10) & 0x1f);
    let mantissa = u64::from(half & 0x3ff);
    let magnitude = match exponent {
        // Exact: an integer of ten bits times a power of two.
        0 => (mantissa as f64 / 16_777_216.0).to_bits(),
        31 => 0x7ff0_0000_0000_0000 | (mantissa << 42),
        _ => ((exponent + 1023 - 15) << 52) | (mantissa << 42),
    };
    f64::from_bits(sign | magnitude)
}

/// The value of a single-precision float, bits of a NaN kept: a conversion by the processor may change those.
pub fn single_to_f64(bits: u32) -> f64 {
    let value = f32::from_bits(bits);
    if value.is_nan() {
        let sign = u64::from(bits >> 31) << 63;
        return f64::from_bits(sign | 0x7ff0_0000_0000_0000 | (u64::from(bits & 0x7f_ffff) << 29));
    }
    f64::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every half there is goes through both wider formats and comes back as itself.
    #[test]
    fn halves_survive() {
        for half in 0..=u16::MAX {
            assert_eq!(shortest(half_to_f64(half).to_bits()), Shortest::Half(half), "{half:#06x}");
        }
    }

    #[test]
    fn what_does_not_fit_stays_wide() {
        assert_eq!(shortest(1.1f64.to_bits()), Shortest::Double(1.1f64.to_bits()));
        assert_eq!(shortest(f64::from(1.1f32).to_bits()), Shortest::Single(1.1f32.to_bits()));
        assert_eq!(shortest(65_504.0f64.to_bits()), Shortest::Half(0x7bff));
        assert_eq!(shortest(65_536.0f64.to_bits()), Shortest::Single(65_536.0f32.to_bits()));
        assert_eq!(shortest(f64::MIN_POSITIVE.to_bits()), Shortest::Double(f64::MIN_POSITIVE.to_bits()));
        assert_eq!(shortest(1), Shortest::Double(1));
        let smallest_single = f64::from(f32::from_bits(1));
        assert_eq!(shortest(smallest_single.to_bits()), Shortest::Single(1));
        assert_eq!(shortest((smallest_single / 2.0).to_bits()), Shortest::Double((smallest_single / 2.0).to_bits()));
    }

    #[test]
    fn singles_survive() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let expected = match shortest(single_to_f64(bits).to_bits()) {
                Shortest::Half(half) => half_to_f64(half).to_bits(),
                Shortest::Single(single) => single_to_f64(single).to_bits(),
                Shortest::Double(_) => 0xdead,
            };
            assert_eq!(single_to_f64(bits).to_bits(), expected, "{bits:#010x}");
        }
    }
}
