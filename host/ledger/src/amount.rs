//! Amounts of a token (behaviour.md 10.10).

use std::collections::BTreeMap;
use std::fmt;

use maxhost_model::Party;
use serde::{Deserialize, Serialize};

use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The largest quantity: what fits 63 bits, so that every database can hold it and sum it.
pub const MAX_QUANTITY: u64 = i64::MAX as u64;

/// The most decimal digits of a token's unit: 10 to this power is the largest power of ten that fits a quantity.
pub const MAX_DIGITS: u8 = 18;

/// The longest reference of an issuer, in bytes.
pub const MAX_ISSUER_REFERENCE: usize = 512;

/// A quantity of a token, in its smallest unit. One unit for people is 10 to the power of `digits`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawAmount<T>", bound(deserialize = "T: Deserialize<'de>"))]
pub struct Amount<T> {
    quantity: u64,
    digits: u8,
    token: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAmount<T> {
    quantity: u64,
    digits: u8,
    token: T,
}

impl<T> TryFrom<RawAmount<T>> for Amount<T> {
    type Error = Refused;

    fn try_from(raw: RawAmount<T>) -> Result<Amount<T>> {
        Amount::new(raw.quantity, raw.digits, raw.token)
    }
}

/// What to do with the digits of a decimal that a token does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Refuse them, unless they are zeros.
    Exact,
    /// Leave them out.
    Down,
    /// To the nearest, and from the middle to the even one.
    HalfEven,
}

impl<T> Amount<T> {
    /// A quantity in the smallest unit.
    ///
    /// # Errors
    /// [`Rule::AmountOverflow`] above [`MAX_QUANTITY`], [`Rule::ValueInvalid`] above [`MAX_DIGITS`].
    pub fn new(quantity: u64, digits: u8, token: T) -> Result<Amount<T>> {
        if quantity > MAX_QUANTITY {
            return Err(overflow());
        }
        if digits > MAX_DIGITS {
            return Err(Refused::new(Rule::ValueInvalid, format!("a token has at most {MAX_DIGITS} decimal digits")));
        }
        Ok(Amount { quantity, digits, token })
    }

    /// Reads a decimal such as `12.34`.
    ///
    /// # Errors
    /// [`Rule::ValueInvalid`] if it is no decimal, [`Rule::AmountNegative`] below zero, [`Rule::AmountOverflow`] above the
    /// largest quantity, [`Rule::AmountInexact`] for digits that the token lacks when rounding is exact.
    pub fn from_decimal(text: &str, digits: u8, token: T, rounding: Rounding) -> Result<Amount<T>> {
        let refuse = || {
            let shown: String = text.chars().take(40).collect();
            Refused::new(Rule::ValueInvalid, format!("'{shown}' is no decimal such as 12.34"))
        };
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) {
            return Err(refuse());
        }
        if negative && unsigned.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
            return Err(Refused::new(Rule::AmountNegative, format!("an amount is not below zero: {text}")));
        }
        let (kept, cut) = fraction.split_at(fraction.len().min(usize::from(digits)));
        let mut quantity = 0_u64;
        let missing = usize::from(digits).saturating_sub(kept.len());
        for digit in whole.bytes().chain(kept.bytes()).chain(std::iter::repeat_n(b'0', missing)) {
            let next = quantity.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
            quantity = next.filter(|next| *next <= MAX_QUANTITY).ok_or_else(overflow)?;
        }
        Amount::new(quantity + round(quantity, cut, rounding, digits)?, digits, token)
    }

    /// How much, in the smallest unit.
    #[must_use]
    pub fn quantity(&self) -> u64 {
        self.quantity
    }

    /// How many decimal digits the token's unit has.
    #[must_use]
    pub fn digits(&self) -> u8 {
        self.digits
    }

    /// Of what.
    #[must_use]
    pub fn token(&self) -> &T {
        &self.token
    }
}

/// What rounding adds for the digits that were cut.
fn round(quantity: u64, cut: &str, rounding: Rounding, digits: u8) -> Result<u64> {
    let lost = cut.bytes().any(|digit| digit != b'0');
    Ok(match rounding {
        Rounding::Exact if lost => {
            return Err(Refused::new(Rule::AmountInexact, format!("the token has {digits} decimal digits only")));
        }
        Rounding::Exact | Rounding::Down => 0,
        Rounding::HalfEven => {
            let above = cut.as_bytes().first().is_some_and(|first| *first > b'5')
                || (cut.starts_with('5') && cut.bytes().skip(1).any(|digit| digit != b'0'));
            let half = cut.starts_with('5') && !above;
            u64::from(above || (half && quantity % 2 == 1))
        }
    })
}

fn overflow() -> Refused {
    Refused::new(Rule::AmountOverflow, format!("an amount is at most {MAX_QUANTITY}"))
}

impl<T: Clone + PartialEq> Amount<T> {
    fn same_token(&self, other: &Amount<T>) -> Result<()> {
        if self.token == other.token && self.digits == other.digits {
            return Ok(());
        }
        Err(Refused::new(Rule::TokenMismatch, "amounts of different tokens do not add up"))
    }

    fn with(&self, quantity: u64) -> Amount<T> {
        Amount { quantity, digits: self.digits, token: self.token.clone() }
    }

    /// The sum of both.
    ///
    /// # Errors
    /// [`Rule::TokenMismatch`], [`Rule::AmountOverflow`].
    pub fn plus(&self, other: &Amount<T>) -> Result<Amount<T>> {
        self.same_token(other)?;
        // Both fit 63 bits, so the sum fits 64.
        let sum = self.quantity + other.quantity;
        if sum > MAX_QUANTITY { Err(overflow()) } else { Ok(self.with(sum)) }
    }

    /// What is left.
    ///
    /// # Errors
    /// [`Rule::TokenMismatch`]; [`Rule::AmountNegative`] if the other is larger.
    pub fn minus(&self, other: &Amount<T>) -> Result<Amount<T>> {
        self.same_token(other)?;
        let rest = self.quantity.checked_sub(other.quantity);
        let below = || Refused::new(Rule::AmountNegative, format!("{} from {}", other.quantity, self.quantity));
        rest.map(|rest| self.with(rest)).ok_or_else(below)
    }

    /// The sum of all, or `None` of none.
    ///
    /// # Errors
    /// As [`Amount::plus`].
    pub fn sum<'a>(amounts: impl IntoIterator<Item = &'a Amount<T>>) -> Result<Option<Amount<T>>>
    where
        T: 'a,
    {
        let mut amounts = amounts.into_iter();
        let Some(first) = amounts.next() else { return Ok(None) };
        amounts.try_fold(first.clone(), |sum, next| sum.plus(next)).map(Some)
    }

    /// As many parts as asked for, that differ by one at most, and add up to the whole.
    ///
    /// # Errors
    /// [`Rule::ValueInvalid`] for no parts.
    pub fn split_evenly(&self, parts: u32) -> Result<Vec<Amount<T>>> {
        if parts == 0 {
            return Err(Refused::new(Rule::ValueInvalid, "an amount is split into one part at least"));
        }
        let (each, more) = (self.quantity / u64::from(parts), self.quantity % u64::from(parts));
        Ok((0..u64::from(parts)).map(|part| self.with(each + u64::from(part < more))).collect())
    }
}

impl<T: fmt::Display> fmt::Display for Amount<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_u64.pow(u32::from(self.digits));
        if self.digits == 0 {
            return write!(f, "{} {}", self.quantity, self.token);
        }
        let (whole, fraction) = (self.quantity / unit, self.quantity % unit);
        write!(f, "{whole}.{fraction:0width$} {}", self.token, width = usize::from(self.digits))
    }
}

/// A product with who issued it, and under which reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawIssued<P>", bound(deserialize = "P: Deserialize<'de>"))]
pub struct Issued<P> {
    issuer: Party,
    #[serde(with = "maxhost_model::octets")]
    reference: Vec<u8>,
    product: P,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIssued<P> {
    issuer: Party,
    #[serde(with = "maxhost_model::octets")]
    reference: Vec<u8>,
    product: P,
}

impl<P> TryFrom<RawIssued<P>> for Issued<P> {
    type Error = Refused;

    fn try_from(raw: RawIssued<P>) -> Result<Issued<P>> {
        Issued::new(raw.issuer, raw.reference, raw.product)
    }
}

impl<P> Issued<P> {
    /// A product of this issuer.
    ///
    /// # Errors
    /// [`Rule::ValueInvalid`] for a reference of more than [`MAX_ISSUER_REFERENCE`] bytes.
    pub fn new(issuer: Party, reference: Vec<u8>, product: P) -> Result<Issued<P>> {
        if reference.len() > MAX_ISSUER_REFERENCE {
            let message = format!("an issuer's reference has at most {MAX_ISSUER_REFERENCE} bytes");
            return Err(Refused::new(Rule::ValueInvalid, message));
        }
        Ok(Issued { issuer, reference, product })
    }

    /// Who issued it.
    #[must_use]
    pub fn issuer(&self) -> &Party {
        &self.issuer
    }

    /// Under which reference.
    #[must_use]
    pub fn reference(&self) -> &[u8] {
        &self.reference
    }

    /// What it is.
    #[must_use]
    pub fn product(&self) -> &P {
        &self.product
    }
}

/// A movement of a token between two accounts. Ann to Bob by a quantity is the same as Bob to Ann by its negative.
#[derive(Debug, Clone)]
pub struct AmountTransfer<T, A> {
    quantity: i64,
    token: T,
    source: A,
    destination: A,
}

impl<T: Clone + PartialEq, A: Clone + Ord> AmountTransfer<T, A> {
    /// So much from the first account to the second.
    ///
    /// # Errors
    /// [`Rule::ValueInvalid`] if both are the same account; [`Rule::AmountOverflow`] for the one quantity without a
    /// negative.
    pub fn new(quantity: i64, token: T, source: A, destination: A) -> Result<AmountTransfer<T, A>> {
        if source == destination {
            return Err(Refused::new(Rule::ValueInvalid, "a transfer is between two different accounts"));
        }
        if quantity == i64::MIN {
            return Err(overflow());
        }
        Ok(AmountTransfer { quantity, token, source, destination })
    }

    /// How much goes from source to destination; below zero it goes the other way.
    #[must_use]
    pub fn quantity(&self) -> i64 {
        self.quantity
    }

    /// The same movement, told from the other side.
    #[must_use]
    pub fn flipped(&self) -> AmountTransfer<T, A> {
        AmountTransfer {
            quantity: -self.quantity,
            token: self.token.clone(),
            source: self.destination.clone(),
            destination: self.source.clone(),
        }
    }

    /// Both movements as one.
    ///
    /// # Errors
    /// [`Rule::TokenMismatch`] for another token or another pair of accounts, [`Rule::AmountOverflow`].
    pub fn plus(&self, other: &AmountTransfer<T, A>) -> Result<AmountTransfer<T, A>> {
        if self.token != other.token {
            return Err(Refused::new(Rule::TokenMismatch, "transfers of different tokens do not add up"));
        }
        let other = if other.source == self.destination { other.flipped() } else { other.clone() };
        if (&other.source, &other.destination) != (&self.source, &self.destination) {
            return Err(Refused::new(Rule::TokenMismatch, "transfers between different accounts do not add up"));
        }
        let quantity = self.quantity.checked_add(other.quantity).ok_or_else(overflow)?;
        AmountTransfer::new(quantity, self.token.clone(), self.source.clone(), self.destination.clone())
    }

    /// Moves it over a list of accounts. An account that is not in the list has nothing.
    ///
    /// # Errors
    /// [`Rule::AmountNegative`] if the paying account has less, [`Rule::AmountOverflow`]; the balances are then as before.
    pub fn apply(&self, balances: &mut BTreeMap<A, u64>) -> Result<()> {
        let forward = self.quantity >= 0;
        let (payer, payee) =
            if forward { (&self.source, &self.destination) } else { (&self.destination, &self.source) };
        let moved = self.quantity.unsigned_abs();
        let left = balances.get(payer).copied().unwrap_or(0).checked_sub(moved);
        let left = left.ok_or_else(|| Refused::new(Rule::AmountNegative, "the paying account has too little"))?;
        let more = balances.get(payee).copied().unwrap_or(0).checked_add(moved).filter(|sum| *sum <= MAX_QUANTITY);
        let more = more.ok_or_else(overflow)?;
        balances.insert(payer.clone(), left);
        balances.insert(payee.clone(), more);
        Ok(())
    }
}

impl<T: PartialEq, A: PartialEq> PartialEq for AmountTransfer<T, A> {
    fn eq(&self, other: &AmountTransfer<T, A>) -> bool {
        let same =
            self.quantity == other.quantity && self.source == other.source && self.destination == other.destination;
        let flipped =
            self.quantity == -other.quantity && self.source == other.destination && self.destination == other.source;
        self.token == other.token && (same || flipped)
    }
}

impl<T: Eq, A: Eq> Eq for AmountTransfer<T, A> {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::codec;

    fn gbp(quantity: u64) -> Amount<String> {
        Amount::new(quantity, 2, "GBP".to_owned()).unwrap()
    }

    fn decimal(text: &str, rounding: Rounding) -> Result<u64> {
        Amount::from_decimal(text, 2, (), rounding).map(|amount| amount.quantity())
    }

    #[test]
    fn decimals_are_exact_or_rounded() {
        assert_eq!(decimal("12.34", Rounding::Exact).unwrap(), 1234);
        assert_eq!(decimal("12", Rounding::Exact).unwrap(), 1200);
        assert_eq!(decimal("0.500", Rounding::Exact).unwrap(), 50);
        assert_eq!(decimal("12.345", Rounding::Exact).unwrap_err().rule(), Rule::AmountInexact);
        assert_eq!(decimal("12.349", Rounding::Down).unwrap(), 1234);
        for (text, rounded) in [("0.005", 0), ("0.0051", 1), ("0.015", 2), ("0.025", 2), ("0.026", 3), ("0.0149", 1)] {
            assert_eq!(decimal(text, Rounding::HalfEven).unwrap(), rounded, "{text}");
        }
        assert_eq!(decimal("-1", Rounding::Exact).unwrap_err().rule(), Rule::AmountNegative);
        assert_eq!(decimal("-0.00", Rounding::Exact).unwrap(), 0);
        for bad in ["", ".", "1.", ".1", "1e3", "1,5", "٣", "+1", "1 "] {
            assert_eq!(decimal(bad, Rounding::Exact).unwrap_err().rule(), Rule::ValueInvalid, "{bad}");
        }
        assert_eq!(decimal("92233720368547758.07", Rounding::Exact).unwrap(), MAX_QUANTITY);
        assert_eq!(decimal("92233720368547758.08", Rounding::Exact).unwrap_err().rule(), Rule::AmountOverflow);
        assert_eq!(decimal("92233720368547758.076", Rounding::HalfEven).unwrap_err().rule(), Rule::AmountOverflow);
        assert_eq!(gbp(1205).to_string(), "12.05 GBP");
    }

    #[test]
    fn different_tokens_do_not_mix() {
        let usd = Amount::new(1, 2, "USD".to_owned()).unwrap();
        assert_eq!(gbp(1).plus(&usd).unwrap_err().rule(), Rule::TokenMismatch);
        assert_eq!(gbp(1).minus(&gbp(2)).unwrap_err().rule(), Rule::AmountNegative);
        assert_eq!(gbp(MAX_QUANTITY).plus(&gbp(1)).unwrap_err().rule(), Rule::AmountOverflow);
        assert_eq!(Amount::<String>::sum([]).unwrap(), None);
    }

    #[test]
    fn amounts_beyond_the_range_are_not_decoded() {
        #[derive(Serialize)]
        struct Raw {
            quantity: u64,
            digits: u8,
            token: &'static str,
        }
        let decode = |quantity, digits| {
            let bytes = codec::encode("amount", &Raw { quantity, digits, token: "GBP" }).unwrap();
            codec::decode::<Amount<String>>("amount", &bytes)
        };
        assert_eq!(decode(7, 2).unwrap(), gbp(7));
        assert!(decode(MAX_QUANTITY + 1, 2).is_err());
        assert!(decode(1, MAX_DIGITS + 1).is_err());
    }

    #[test]
    fn transfers_move_or_leave_all_as_it_was() {
        let transfer = AmountTransfer::new(30, "GBP", "Ann", "Bob").unwrap();
        let mut balances = BTreeMap::from([("Ann", 50)]);
        transfer.apply(&mut balances).unwrap();
        assert_eq!(balances, BTreeMap::from([("Ann", 20), ("Bob", 30)]));
        assert_eq!(transfer.apply(&mut balances).unwrap_err().rule(), Rule::AmountNegative);
        assert_eq!(balances, BTreeMap::from([("Ann", 20), ("Bob", 30)]));
        AmountTransfer::new(-30, "GBP", "Ann", "Bob").unwrap().apply(&mut balances).unwrap();
        assert_eq!(balances, BTreeMap::from([("Ann", 50), ("Bob", 0)]));
        assert!(AmountTransfer::new(1, "GBP", "Ann", "Ann").is_err());
        let other = AmountTransfer::new(1, "GBP", "Ann", "Cid").unwrap();
        assert_eq!(transfer.plus(&other).unwrap_err().rule(), Rule::TokenMismatch);
    }

    proptest! {
        #[test]
        fn parts_differ_by_one_and_add_up(quantity in 0..=MAX_QUANTITY, parts in 1_u32..200) {
            let split = gbp(quantity).split_evenly(parts).unwrap();
            prop_assert_eq!(split.len(), parts as usize);
            prop_assert_eq!(Amount::sum(&split).unwrap().unwrap(), gbp(quantity));
            let (least, most) = (split.iter().map(Amount::quantity).min().unwrap(), split.iter().map(Amount::quantity).max().unwrap());
            prop_assert!(most - least <= 1);
        }

        #[test]
        fn a_decimal_is_what_is_printed(quantity in 0..=MAX_QUANTITY, digits in 0..=MAX_DIGITS) {
            let amount = Amount::new(quantity, digits, "T").unwrap();
            let text = amount.to_string();
            let read = Amount::from_decimal(text.strip_suffix(" T").unwrap(), digits, "T", Rounding::Exact).unwrap();
            prop_assert_eq!(read, amount);
        }

        #[test]
        fn a_flipped_transfer_is_equal_and_sums_do_not_care(x in -1000_i64..1000, y in -1000_i64..1000) {
            let a = AmountTransfer::new(x, "GBP", "Ann", "Bob").unwrap();
            let b = AmountTransfer::new(y, "GBP", "Bob", "Ann").unwrap();
            prop_assert_eq!(&a.flipped(), &a);
            prop_assert_eq!(a.plus(&b).unwrap(), b.plus(&a).unwrap());
            prop_assert_eq!(a.plus(&b).unwrap().quantity(), x - y);
        }
    }
}
