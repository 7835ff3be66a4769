//! Elements of constants in text: shortest decimals that read back to the same bits, `nan`, `inf`, and `0x` bits for every
//! other NaN.

use crate::dtype::{DType, Kind};
use crate::tensor::Tensor;

/// Every element of `t`, comma-separated.
pub(super) fn print(t: &Tensor) -> String {
    let items: Vec<String> = match t.dtype().kind() {
        Kind::Float => {
            t.bytes().chunks_exact(t.dtype().size()).zip(t.to_f64()).map(|(b, v)| float(t.dtype(), b, v)).collect()
        }
        Kind::Bool => t.to_i128().into_iter().map(|v| (v != 0).to_string()).collect(),
        Kind::Signed | Kind::Unsigned | Kind::String => t.to_i128().iter().map(i128::to_string).collect(),
    };
    items.join(", ")
}

fn float(dtype: DType, bytes: &[u8], v: f64) -> String {
    if v.is_nan() && Tensor::scalar_f64(dtype, f64::NAN).bytes()[..] != *bytes {
        let hex: String = bytes.iter().rev().map(|b| format!("{b:02x}")).collect();
        return format!("0x{hex}");
    }
    if v.is_nan() {
        return "nan".into();
    }
    match dtype {
        DType::F64 => format!("{v:?}"),
        // f16 and bf16 are exact in f32, whose shortest form is shorter.
        _ => format!("{:?}", v as f32),
    }
}

/// An f32 attribute.
pub(super) fn print_f32(v: f32) -> String {
    float(DType::F32, &v.to_le_bytes(), v as f64)
}

/// Appends the bytes of the element written `sign text`.
pub(super) fn parse(dtype: DType, negative: bool, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let bad = || format!("{}{text} is no {dtype}", if negative { "-" } else { "" });
    let signed = if negative { format!("-{text}") } else { text.to_string() };
    if let Some(hex) = text.strip_prefix("0x") {
        let bits = u64::from_str_radix(hex, 16).map_err(|_| bad())?;
        if negative || !dtype.is_float() || hex.len() > 2 * dtype.size() {
            return Err(bad());
        }
        out.extend(&bits.to_le_bytes()[..dtype.size()]);
        return Ok(());
    }
    let element = match dtype.kind() {
        Kind::Float => {
            // Each width is read directly: rounding twice could miss the last bit.
            let v = match dtype {
                DType::F64 => signed.parse::<f64>().map_err(|_| bad())?,
                _ => signed.parse::<f32>().map_err(|_| bad())? as f64,
            };
            Tensor::scalar_f64(dtype, v)
        }
        Kind::Bool => match signed.as_str() {
            "true" | "1" => Tensor::from_i128(dtype, vec![], [1]),
            "false" | "0" => Tensor::from_i128(dtype, vec![], [0]),
            _ => return Err(bad()),
        },
        Kind::Signed | Kind::Unsigned => {
            let v: i128 = signed.parse().map_err(|_| bad())?;
            let element = Tensor::from_i128(dtype, vec![], [v]);
            if element.to_i128() != [v] {
                return Err(bad());
            }
            element
        }
        Kind::String => return Err(bad()),
    };
    out.extend(&element.bytes()[..]);
    Ok(())
}

/// The f32 of an attribute.
pub(super) fn parse_f32(negative: bool, text: &str) -> Result<f32, String> {
    let mut bytes = vec![];
    parse(DType::F32, negative, text, &mut bytes)?;
    bytes.try_into().map(f32::from_le_bytes).map_err(|_| format!("{text} is no f32"))
}
