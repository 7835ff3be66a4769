//! f16 and bf16, converted in integer arithmetic: exact one way, rounded to nearest even the other. NaNs stay NaNs.

macro_rules! entry {
    ($($name:ident($value:ident: $from:ty) -> $to:ty = $body:expr;)*) => {
        $(
            #[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
            pub extern "C" fn $name($value: $from) -> $to { $body }
        )*
        /// Names and addresses for the JIT.
        #[cfg(not(lehr_runtime_object))]
        pub fn symbols() -> [(&'static str, *const u8); 4] {
            [$((stringify!($name), $name as *const u8)),*]
        }
    };
}

entry! {
    lehr_rt_f16_to_f32(bits: u32) -> f32 = f16_to_f32(bits as u16);
    lehr_rt_f32_to_f16(value: f32) -> u32 = f32_to_f16(value) as u32;
    lehr_rt_bf16_to_f32(bits: u32) -> f32 = f32::from_bits(bits << 16);
    lehr_rt_f32_to_bf16(value: f32) -> u32 = f32_to_bf16(value) as u32;
}

fn f16_to_f32(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let magnitude = bits as u32 & 0x7fff;
    let positive = match magnitude >> 10 {
        // A subnormal is its mantissa in units of 2^-24, which f32 holds exactly.
        0 => (magnitude as f32 * f32::from_bits((127 - 24) << 23)).to_bits(),
        31 => 0x7f80_0000 | (magnitude & 0x3ff) << 13,
        _ => (magnitude << 13).wrapping_add((127 - 15) << 23),
    };
    f32::from_bits(sign | positive)
}

fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | (magnitude >> 13) as u16 & 0x3ff;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14: adding 0.5 (whose last bit is worth 2^-24) leaves the rounded subnormal in the low bits.
        let shifted = f32::from_bits(magnitude) + 0.5;
        return sign | shifted.to_bits().wrapping_sub(0.5f32.to_bits()) as u16;
    }
    let rebased = magnitude.wrapping_sub((127 - 15) << 23);
    sign | (rebased.wrapping_add(0xfff).wrapping_add(rebased >> 13 & 1) >> 13) as u16
}

fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff).wrapping_add(bits >> 16 & 1) >> 16) as u16
}
