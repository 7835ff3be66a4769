//! Convolutions. auto_pad, output_shape and a missing kernel_shape are resolved here.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{Conv, ConvTranspose};
use lehr_ir::{Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator         opsets    operands importer
    row("Conv",          (1, MAX), (2, 3), Own(conv)),
    row("ConvTranspose", (1, MAX), (2, 3), Own(conv_transpose)),
];

/// How padding is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoPad {
    /// By the attribute `pads`.
    Explicit,
    /// Such that the output size is the input size by the stride, the odd element at the end.
    SameUpper,
    /// The same, the odd element at the beginning.
    SameLower,
    /// None.
    Valid,
}

const AUTO_PADS: &[(&str, AutoPad)] = &[
    ("NOTSET", AutoPad::Explicit),
    ("SAME_UPPER", AutoPad::SameUpper),
    ("SAME_LOWER", AutoPad::SameLower),
    ("VALID", AutoPad::Valid),
];

/// A window over the spatial axes: one entry per axis, pads two.
#[derive(Debug)]
pub struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pads: Vec<usize>,
    pub auto: AutoPad,
}

/// Sizes of one axis may not reach this: products of a few of them stay within 64 bits.
const LARGE: usize = 1 << 31;

/// Reads `kernel_shape`, `strides`, `dilations`, `pads` and `auto_pad`, and resolves the padding for an input whose
/// spatial dimensions are `spatial`. `kernel` is the kernel's size where the weights tell it.
pub fn window(site: &mut Site, spatial: &[Dim], kernel: Option<Vec<usize>>, dilated: bool) -> Result<Window> {
    let mut w = unresolved(site, spatial.len(), kernel, dilated)?;
    match w.auto {
        AutoPad::Explicit => {}
        AutoPad::Valid => w.pads = vec![0; 2 * spatial.len()],
        AutoPad::SameUpper | AutoPad::SameLower => {
            for (i, dim) in spatial.iter().enumerate() {
                let total = same_padding(site, dim, &w, i)?;
                let (less, more) = (total / 2, total - total / 2);
                let (begin, end) = if w.auto == AutoPad::SameUpper { (less, more) } else { (more, less) };
                w.pads[i] = begin;
                w.pads[i + spatial.len()] = end;
            }
        }
    }
    Ok(w)
}

fn unresolved(site: &mut Site, n: usize, kernel: Option<Vec<usize>>, dilated: bool) -> Result<Window> {
    let given = site.attrs.counts("kernel_shape")?;
    let kernel = match (given, kernel) {
        (Some(given), Some(known)) if given != known => {
            return Err(bad("kernel_shape", &format!("it is {given:?}, but the weights say {known:?}")));
        }
        (Some(k), _) | (None, Some(k)) => k,
        (None, None) => return Err(bad("kernel_shape", "it is missing")),
    };
    let auto = site.attrs.keyword("auto_pad", AutoPad::Explicit, AUTO_PADS)?;
    let strides = site.attrs.counts("strides")?.unwrap_or_else(|| vec![1; n]);
    let dilations = if dilated { site.attrs.counts("dilations")? } else { None }.unwrap_or_else(|| vec![1; n]);
    let pads = site.attrs.counts("pads")?.unwrap_or_else(|| vec![0; 2 * n]);
    let lists =
        [("kernel_shape", &kernel, n), ("strides", &strides, n), ("dilations", &dilations, n), ("pads", &pads, 2 * n)];
    for (name, list, len) in lists {
        if list.len() != len {
            return Err(bad(name, &format!("it has {} entries, {len} are needed", list.len())));
        }
        if list.iter().any(|&v| v >= LARGE || (v == 0 && name != "pads")) {
            return Err(bad(name, &format!("{list:?} holds an absurd number")));
        }
    }
    Ok(Window { kernel, strides, dilations, pads, auto })
}

/// Elements of padding at both ends of an axis together, such that the output has `ceil(in/stride)` elements.
fn same_padding(site: &Site, dim: &Dim, w: &Window, axis: usize) -> Result<usize> {
    let (stride, extent) = (w.strides[axis] as i64, (w.kernel[axis] as i64 - 1) * w.dilations[axis] as i64 + 1);
    if stride == 1 {
        return Ok((extent - 1) as usize);
    }
    let Some(n) = dim.as_const() else {
        return Err(site
            .error("import.symbolic", format!("auto_pad with stride {stride} depends on the dimension {dim}"))
            .note(format!("give its number with --dim {dim}=N")));
    };
    let out = Dim::Const(n).ceil_div(&Dim::Const(stride)).as_const().unwrap_or(0);
    Ok((out - 1).saturating_mul(stride).saturating_add(extent).saturating_sub(n).max(0) as usize)
}

/// The spatial dimensions of N C spatial....
pub fn spatial(site: &Site, x: ValueId) -> Result<Vec<Dim>> {
    let shape = site.shape(x);
    match shape.get(2..) {
        Some(s) if !s.is_empty() => Ok(s.to_vec()),
        Some(_) | None => {
            let why = format!("its operand has rank {}; batch, channels and spatial axes are needed", shape.len());
            Err(site.error("import.operand", why))
        }
    }
}

/// The size of a kernel, from the weights' type.
fn kernel_of(site: &Site, w: ValueId) -> Result<Vec<usize>> {
    let ty = site.ty(w);
    let kernel: Option<Vec<usize>> = ty.const_shape().and_then(|s| Some(s.get(2..)?.to_vec()));
    kernel.ok_or_else(|| site.error("import.symbolic", format!("the weights' shape {ty} must be known")))
}

fn group(site: &mut Site) -> Result<usize> {
    match site.attrs.count("group", 1)? {
        0 => Err(bad("group", "it must be at least 1")),
        n => Ok(n),
    }
}

fn conv(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, w) = (site.x(0)?, site.x(1)?);
    let dims = spatial(site, x)?;
    let kernel = kernel_of(site, w)?;
    let Window { strides, pads, dilations, .. } = window(site, &dims, Some(kernel), true)?;
    let op = Conv { strides, pads, dilations, groups: group(site)? };
    let operands = [Some(x), Some(w), site.opt(2)];
    Ok(vec![site.node(op, &operands)?.out(0)])
}

/// Output size of an axis: `stride*(in - 1) + output_padding + extent - pad_begin - pad_end`.
fn conv_transpose(site: &mut Site) -> Result<Vec<ValueId>> {
    let (x, w) = (site.x(0)?, site.x(1)?);
    let dims = spatial(site, x)?;
    let n = dims.len();
    let kernel = kernel_of(site, w)?;
    let win = unresolved(site, n, Some(kernel), true)?;
    let output_padding = site.attrs.counts("output_padding")?.unwrap_or_else(|| vec![0; n]);
    if output_padding.len() != n || output_padding.iter().any(|&p| p >= LARGE) {
        return Err(bad("output_padding", &format!("{output_padding:?} does not fit {n} spatial axes")));
    }
    let output_shape = site.attrs.ints("output_shape")?;
    let mut pads: Vec<i64> = win.pads.iter().map(|&p| p as i64).collect();
    for (i, dim) in dims.iter().enumerate() {
        let stride = win.strides[i] as i64;
        let extent = (win.kernel[i] as i64 - 1) * win.dilations[i] as i64 + 1;
        let fixed = output_padding[i] as i64 + extent;
        let total = match (&output_shape, win.auto) {
            (Some(shape), _) => {
                // Some exporters write all axes, batch and channels included.
                let wanted = *shape
                    .get(i + shape.len().saturating_sub(n))
                    .ok_or_else(|| bad("output_shape", "it has fewer entries than there are spatial axes"))?;
                let Some(len) = dim.as_const() else {
                    return Err(site
                        .error("import.symbolic", format!("output_shape depends on the dimension {dim}"))
                        .note(format!("give its number with --dim {dim}=N")));
                };
                stride.saturating_mul(len - 1).saturating_add(fixed).saturating_sub(wanted)
            }
            // The output has `in*stride` elements.
            (None, AutoPad::SameUpper | AutoPad::SameLower) => fixed - stride,
            (None, AutoPad::Valid) => 0,
            (None, AutoPad::Explicit) => continue,
        };
        let (less, more) = (total.div_euclid(2), total - total.div_euclid(2));
        // Opset 1's text has the halves the other way round; opset 11 corrected it to what ONNX Runtime had always done.
        let (begin, end) = if win.auto == AutoPad::SameUpper { (less, more) } else { (more, less) };
        (pads[i], pads[i + n]) = (begin, end);
    }
    let op =
        ConvTranspose { strides: win.strides, pads, dilations: win.dilations, output_padding, groups: group(site)? };
    let operands = [Some(x), Some(w), site.opt(2)];
    Ok(vec![site.node(op, &operands)?.out(0)])
}
