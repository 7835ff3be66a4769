//! Scalar f64 functions for compiled code, which may import the C library but not the separate libm.
//!
//! Every function is right at all arguments (NaN, infinities, signed zeros, subnormals, huge) and within 2 units in the last place.
//! f32 callers widen, call and round, which makes them right but for rounding.

pub(crate) mod atan;
pub(crate) mod dd;
pub(crate) mod erf;
pub(crate) mod exp;
mod fmod;
pub(crate) mod log;
pub(crate) mod trig;

macro_rules! entries {
    { of one { $($one:ident = $f1:path;)* } of two { $($two:ident = $f2:path;)* } } => {
        $(
            #[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
            pub extern "C" fn $one(x: f64) -> f64 { $f1(x) }
        )*
        $(
            #[cfg_attr(lehr_runtime_object, unsafe(no_mangle))]
            pub extern "C" fn $two(x: f64, y: f64) -> f64 { $f2(x, y) }
        )*
        /// Names and addresses for the JIT.
        #[cfg(not(lehr_runtime_object))]
        pub fn symbols() -> &'static [(&'static str, fn() -> *const u8)] {
            &[$((stringify!($one), || $one as *const u8),)* $((stringify!($two), || $two as *const u8)),*]
        }
    };
}

entries! {
    of one {
        lehr_rt_sin_f64 = trig::sin;
        lehr_rt_cos_f64 = trig::cos;
        lehr_rt_tan_f64 = trig::tan;
        lehr_rt_asin_f64 = atan::asin;
        lehr_rt_acos_f64 = atan::acos;
        lehr_rt_atan_f64 = atan::atan;
        lehr_rt_sinh_f64 = exp::sinh;
        lehr_rt_cosh_f64 = exp::cosh;
        lehr_rt_tanh_f64 = exp::tanh;
        lehr_rt_asinh_f64 = log::asinh;
        lehr_rt_acosh_f64 = log::acosh;
        lehr_rt_atanh_f64 = log::atanh;
        lehr_rt_exp_f64 = exp::exp;
        lehr_rt_expm1_f64 = exp::expm1;
        lehr_rt_log_f64 = log::log;
        lehr_rt_log1p_f64 = log::log1p;
        lehr_rt_erf_f64 = erf::erf;
    }
    of two {
        lehr_rt_fmod_f64 = fmod::fmod;
        lehr_rt_pow_f64 = log::pow;
    }
}
