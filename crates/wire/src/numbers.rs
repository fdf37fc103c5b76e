//! Numbers as clients write them.

use serde_json::{Number, Value};

/// Turns all integral numbers into integers, at every depth.
///
/// To JSON Schema `1.0` and `1e3` are integers, but a Rust integer type does not accept them. A
/// number beyond 64 bits stays as it is.
pub fn settle(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(integer) = number.as_f64().filter(|_| number.is_f64()).and_then(integer) {
                *number = integer;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(members) => members.values_mut().for_each(settle),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The integer that a float represents, if it is one of 64 bits.
fn integer(float: f64) -> Option<Number> {
    const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;
    const LEAST_I64: f64 = -9_223_372_036_854_775_808.0;
    if float.fract() != 0.0 || !(LEAST_I64..BEYOND_U64).contains(&float) {
        return None;
    }
    Some(if float < 0.0 { Number::from(float as i64) } else { Number::from(float as u64) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settled(json: &str) -> String {
        let mut value = serde_json::from_str(json).unwrap();
        settle(&mut value);
        value.to_string()
    }

    #[test]
    fn integral_numbers_become_integers_at_every_depth_and_others_stay() {
        for (sent, read) in [
            ("1.0", "1"),
            ("1e3", "1000"),
            ("-0.0", "0"),
            ("-7.00", "-7"),
            ("1.5", "1.5"),
            ("18446744073709549568.0", "18446744073709549568"),
            ("-9223372036854775808.0", "-9223372036854775808"),
            (r#"{"a":[{"b":2.0},"2.0",null,true]}"#, r#"{"a":[{"b":2},"2.0",null,true]}"#),
        ] {
            assert_eq!(settled(sent), read, "{sent}");
        }
        for beyond in ["18446744073709551616", "1e30", "-1e300"] {
            let value: Value = serde_json::from_str(beyond).unwrap();
            assert_eq!(settled(beyond), value.to_string());
        }
    }

    proptest! {
        #[test]
        fn no_number_changes_its_value(float in any::<f64>(), integer: i32) {
            let mut value = Value::from(float);
            settle(&mut value);
            prop_assert_eq!(value.as_f64(), Value::from(float).as_f64());
            prop_assert_eq!(settled(&format!("{integer}.0")), integer.to_string());
        }
    }
}
