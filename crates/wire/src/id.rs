//! The ids of requests, and the tokens of their progress.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::bounds::MAX_ID;

/// The id of a request: a string or an integer, answered with the same JSON type.
///
/// An integer may be written in any way that JSON allows: `1.0` and `1e3` are [`Id::Number`], too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// An integer.
    Number(i64),
    /// A string.
    Text(Box<str>),
    /// Any other number, exactly as written: an integer beyond 64 bits, or, as a progress token, a
    /// number with a fraction.
    Literal(Box<str>),
}

impl Id {
    /// Reads an id from raw JSON.
    ///
    /// `None` if it is neither a string nor a number that a 64 bit float can approximate, or if it
    /// is longer than [`MAX_ID`].
    #[must_use]
    pub fn from_json(raw: &str) -> Option<Self> {
        if raw.len() > MAX_ID {
            return None;
        }
        if raw.starts_with('"') {
            return serde_json::from_str(raw).ok().map(Self::Text);
        }
        if let Some(number) = integer(raw) {
            return Some(Self::Number(number));
        }
        // Serde accepts only valid numbers that are not infinite.
        serde_json::from_str::<f64>(raw).ok().map(|_| Self::Literal(raw.into()))
    }

    /// As [`from_json`](Self::from_json), but `None` for a number with a fraction, which no request
    /// may have as its id (2026-07-28, basic/index, "Requests").
    pub(crate) fn of_request(raw: &str) -> Option<Self> {
        Self::from_json(raw).filter(|id| match id {
            Self::Literal(text) => Decimal::read(text).is_some_and(|number| number.exponent >= 0),
            Self::Number(_) | Self::Text(_) => true,
        })
    }

    /// The length of its text in bytes; 0 for a number of 64 bits.
    #[must_use]
    pub fn text_len(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Text(text) | Self::Literal(text) => text.len(),
        }
    }

    /// The id as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => serde_json::Value::from(&**text).to_string(),
            Self::Literal(text) => text.to_string(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) | Self::Literal(text) => text.fmt(f),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => number.serialize(output),
            Self::Text(text) => text.serialize(output),
            Self::Literal(text) => RawValue::from_string(text.to_string())
                .map_err(serde::ser::Error::custom)?
                .serialize(output),
        }
    }
}

/// Only from JSON: other formats do not provide the exact text of a number.
impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(input)?;
        Self::from_json(raw.get()).ok_or_else(|| {
            let wanted = format!("must be a string or a number of at most {MAX_ID} bytes");
            serde::de::Error::custom(wanted)
        })
    }
}

/// The integer that a JSON number represents, however it is written; `None` if it has a fraction,
/// or more than 64 bits.
fn integer(raw: &str) -> Option<i64> {
    if let Ok(number) = raw.parse() {
        return Some(number);
    }
    let number = Decimal::read(raw)?;
    // No integer of 64 bits has more than 19 digits.
    let zeros = usize::try_from(number.exponent).ok().filter(|zeros| *zeros < 20)?;
    format!("{}{}{}", number.sign, number.digits, "0".repeat(zeros)).parse().ok()
}

struct Decimal {
    sign: &'static str,
    /// Without zeros at either end; the number zero has one digit.
    digits: String,
    /// The power of ten that the digits are multiplied by.
    exponent: i64,
}

impl Decimal {
    fn read(raw: &str) -> Option<Self> {
        let (sign, rest) = raw.strip_prefix('-').map_or(("", raw), |rest| ("-", rest));
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = all.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self { sign: "", digits: "0".to_owned(), exponent: 0 });
        }
        let trailing = all.len() - all.trim_end_matches('0').len();
        let shift = i64::try_from(trailing).ok()? - i64::try_from(fraction.len()).ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_add(shift)?;
        Some(Self { sign, digits: significant.to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literal(text: &str) -> Option<Id> {
        Some(Id::Literal(text.into()))
    }

    #[test]
    fn an_integer_is_the_same_id_however_it_is_written() {
        for (text, number) in [
            ("1", 1),
            ("1.0", 1),
            ("1.000", 1),
            ("1e0", 1),
            ("1E3", 1000),
            ("1.5e1", 15),
            ("1200e-2", 12),
            ("-0", 0),
            ("-0.0", 0),
            ("0e99999999999999999999", 0),
            ("-3.0e+2", -300),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808.0", i64::MIN),
        ] {
            assert_eq!(Id::of_request(text), Some(Id::Number(number)), "{text}");
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_kept_exactly_and_a_fraction_is_not_an_id() {
        for text in ["9223372036854775808", "18446744073709551616", "1e30", "-1.5e300"] {
            assert_eq!(Id::of_request(text), literal(text), "{text}");
            assert_eq!(Id::from_json(text).unwrap().to_json(), text);
        }
        for text in ["1.5", "1e-1", "0.1e-400", "1.50"] {
            assert_eq!(Id::of_request(text), None, "{text}");
            assert_eq!(Id::from_json(text), literal(text), "{text}");
        }
        for text in ["1e999", "null", "true", "{}", "[1]", "", "NaN", "inf", "+1", "01", "1.", "-"]
        {
            assert_eq!(Id::from_json(text).filter(|id| id.to_json() == text), None, "{text}");
        }
    }

    #[test]
    fn an_id_is_serialized_exactly_as_it_was_written() {
        for text in ["[1,\"a\"]", "[18446744073709551616,-1.50]"] {
            let ids: Vec<Id> = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&ids).unwrap(), text);
        }
        assert!(serde_json::from_str::<Id>("{}").is_err());
    }

    proptest! {
        #[test]
        fn any_integer_with_a_point_or_an_exponent_is_itself(number: i64, zeros in 0_usize..30) {
            let places = "0".repeat(zeros);
            for text in [format!("{number}.0{places}"), format!("{number}{places}e-{zeros}")] {
                prop_assert_eq!(Id::of_request(&text), Some(Id::Number(number)), "{}", text);
            }
        }

        #[test]
        fn any_number_is_read_and_written_as_the_same_value(number in any::<f64>()) {
            let text = serde_json::Value::from(number).to_string();
            if text != "null" {
                let id = Id::from_json(&text).unwrap();
                prop_assert_eq!(id.to_json().parse::<f64>().unwrap(), number);
            }
        }
    }
}
