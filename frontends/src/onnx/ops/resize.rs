//! Resampling: Upsample (opsets 7 to 9), and Resize with scales or sizes, on some axes or all.

use super::{How::Own, MAX, Row, row};
use crate::onnx::attrs::bad;
use crate::onnx::site::{Result, Site};
use lehr_ir::ops::{CoordinateTransform, NearestMode, Resize, ResizeMode};
use lehr_ir::{Dim, ValueId};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    //  operator    opsets     operands importer
    row("Upsample", (7, 8),    (1, 1), Own(upsample_by_attr)),
    row("Upsample", (9, 9),    (2, 2), Own(resize_by_scales)),
    row("Resize",   (10, 10),  (2, 2), Own(resize_by_scales)),
    row("Resize",   (11, 12),  (3, 4), Own(resize)),
    row("Resize",   (13, MAX), (1, 4), Own(resize)),
];

const MODES: &[(&str, ResizeMode)] = &[
    ("nearest", ResizeMode::Nearest),
    ("linear", ResizeMode::Linear),
    ("bilinear", ResizeMode::Linear),
    ("cubic", ResizeMode::Cubic),
];

const COORDINATES: &[(&str, CoordinateTransform)] = &[
    ("half_pixel", CoordinateTransform::HalfPixel),
    ("pytorch_half_pixel", CoordinateTransform::PytorchHalfPixel),
    ("align_corners", CoordinateTransform::AlignCorners),
    ("asymmetric", CoordinateTransform::Asymmetric),
    ("tf_half_pixel_for_nn", CoordinateTransform::TfHalfPixelForNn),
    ("tf_crop_and_resize", CoordinateTransform::TfCropAndResize),
    ("half_pixel_symmetric", CoordinateTransform::HalfPixelSymmetric),
];

const NEAREST: &[(&str, NearestMode)] = &[
    ("round_prefer_floor", NearestMode::RoundPreferFloor),
    ("round_prefer_ceil", NearestMode::RoundPreferCeil),
    ("floor", NearestMode::Floor),
    ("ceil", NearestMode::Ceil),
];

/// What `sizes` means when the aspect ratio is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

fn upsample_by_attr(site: &mut Site) -> Result<Vec<ValueId>> {
    let scales = site.attrs.floats("scales")?.ok_or_else(|| bad("scales", "it is missing"))?;
    old_resize(site, scales)
}

fn resize_by_scales(site: &mut Site) -> Result<Vec<ValueId>> {
    let scales = site.x(1)?;
    let scales = site.floats(scales, "scales")?;
    old_resize(site, scales)
}

/// Before opset 11 there is one rule: asymmetric coordinates, rounded down.
fn old_resize(site: &mut Site, scales: Vec<f32>) -> Result<Vec<ValueId>> {
    let mode = site.attrs.keyword("mode", ResizeMode::Nearest, &MODES[..3])?;
    let x = site.x(0)?;
    let shape = scaled(site, &site.shape(x), &scales, None)?;
    let op = Resize {
        shape,
        scales,
        mode,
        coordinates: CoordinateTransform::Asymmetric,
        nearest: NearestMode::Floor,
        cubic_a: -0.75,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
        roi: vec![],
    };
    Ok(vec![site.op(op, &[x])?])
}

fn resize(site: &mut Site) -> Result<Vec<ValueId>> {
    let x = site.x(0)?;
    let shape = site.shape(x);
    let rank = shape.len();
    let mode = site.attrs.keyword("mode", ResizeMode::Nearest, MODES)?;
    let coordinates = coordinates(site)?;
    let axes = match if site.opset >= 18 { site.attrs.ints("axes")? } else { None } {
        Some(list) => site.axes(&list, rank)?,
        None => (0..rank).collect(),
    };
    let crop = coordinates == CoordinateTransform::TfCropAndResize;
    let roi = match site.opt(1) {
        Some(v) if crop => full_roi(site, v, &axes, rank)?,
        None if crop => return Err(site.error("import.resize", "tf_crop_and_resize needs the operand roi")),
        Some(_) | None => vec![],
    };
    let (scales, out) = match (operand(site, 2), operand(site, 3)) {
        (Some(_), Some(_)) | (None, None) => {
            return Err(site.error("import.resize", "exactly one of scales and sizes is needed"));
        }
        (Some(v), None) => {
            if site.opset >= 18 {
                site.attrs.opt_string("keep_aspect_ratio_policy")?;
            }
            let given = site.floats(v, "scales")?;
            let scales = spread(site, &given, &axes, 1.0, rank)?;
            let out = scaled(site, &shape, &scales, crop.then_some(&roi[..]))?;
            (scales, out)
        }
        (None, Some(v)) => by_sizes(site, v, &shape, &axes)?,
    };
    let op = Resize {
        shape: out,
        scales,
        mode,
        coordinates,
        nearest: site.attrs.keyword("nearest_mode", NearestMode::RoundPreferFloor, NEAREST)?,
        cubic_a: site.attrs.float("cubic_coeff_a", -0.75)?,
        exclude_outside: site.attrs.flag("exclude_outside", false)?,
        extrapolation: site.attrs.float("extrapolation_value", 0.0)?,
        antialias: if site.opset >= 18 { site.attrs.flag("antialias", false)? } else { false },
        roi,
    };
    Ok(vec![site.op(op, &[x])?])
}

fn coordinates(site: &mut Site) -> Result<CoordinateTransform> {
    let default = CoordinateTransform::HalfPixel;
    let c = site.attrs.keyword("coordinate_transformation_mode", default, COORDINATES)?;
    let known = match c {
        CoordinateTransform::TfHalfPixelForNn => site.opset < 13,
        CoordinateTransform::HalfPixelSymmetric => site.opset >= 19,
        CoordinateTransform::HalfPixel
        | CoordinateTransform::PytorchHalfPixel
        | CoordinateTransform::AlignCorners
        | CoordinateTransform::Asymmetric
        | CoordinateTransform::TfCropAndResize => true,
    };
    match known {
        true => Ok(c),
        false => Err(bad("coordinate_transformation_mode", &format!("{} is not in opset {}", c.word(), site.opset))),
    }
}

/// An operand that is there; before opset 13 one that is left out is an empty tensor.
fn operand(site: &Site, i: usize) -> Option<ValueId> {
    site.opt(i).filter(|v| !site.ty(*v).elements().is(0))
}

/// Numbers for some axes as numbers for all.
fn spread(site: &Site, given: &[f32], axes: &[usize], other: f32, rank: usize) -> Result<Vec<f32>> {
    if given.len() != axes.len() {
        let why = format!("{} numbers are given for {} axes", given.len(), axes.len());
        return Err(site.error("import.resize", why));
    }
    let mut all = vec![other; rank];
    axes.iter().zip(given).for_each(|(&axis, &v)| all[axis] = v);
    Ok(all)
}

/// Starts of all axes, then ends; axes not mentioned are taken whole.
fn full_roi(site: &mut Site, v: ValueId, axes: &[usize], rank: usize) -> Result<Vec<f32>> {
    let given = site.floats(v, "roi")?;
    if given.len() != 2 * axes.len() {
        return Err(site.error("import.resize", format!("roi has {} entries for {} axes", given.len(), axes.len())));
    }
    let mut roi = spread(site, &given[..axes.len()], axes, 0.0, rank)?;
    roi.extend(spread(site, &given[axes.len()..], axes, 1.0, rank)?);
    Ok(roi)
}

/// Output sizes: `floor(in * scale)`, in the part of the input that `roi` leaves.
fn scaled(site: &Site, shape: &[Dim], scales: &[f32], roi: Option<&[f32]>) -> Result<Vec<Dim>> {
    if scales.len() != shape.len() {
        let why = format!("{} scales are given for {} axes", scales.len(), shape.len());
        return Err(site.error("import.resize", why));
    }
    let mut out = vec![];
    for (i, (dim, &scale)) in shape.iter().zip(scales).enumerate() {
        if !(scale > 0.0 && scale < 1e9) {
            return Err(site.error("import.resize", format!("the scale {scale} is not a positive number")));
        }
        let part = roi.map_or(1.0, |roi| roi[i + shape.len()] - roi[i]);
        out.push(match dim.as_const() {
            Some(n) => Dim::Const((n as f32 * part * scale).floor() as i64),
            None if part == 1.0 => symbolic_scale(site, dim, scale)?,
            None => return Err(unscalable(site, dim, scale * part)),
        });
    }
    Ok(out)
}

/// A symbol times a fraction of small numbers.
fn symbolic_scale(site: &Site, dim: &Dim, scale: f32) -> Result<Dim> {
    let den = (0..10).map(|k| 1i64 << k).find(|&d| (scale as f64 * d as f64).fract() == 0.0);
    let den = den.ok_or_else(|| unscalable(site, dim, scale))?;
    Ok((dim * (scale as f64 * den as f64) as i64).floor_div(&Dim::Const(den)))
}

fn unscalable(site: &Site, dim: &Dim, scale: f32) -> lehr_ir::Diag {
    site.error("import.symbolic", format!("the dimension {dim} times {scale} is not known when compiling"))
        .note(format!("give its number with --dim {dim}=N"))
}

fn by_sizes(site: &mut Site, v: ValueId, shape: &[Dim], axes: &[usize]) -> Result<(Vec<f32>, Vec<Dim>)> {
    let words = [("stretch", Aspect::Stretch), ("not_larger", Aspect::NotLarger), ("not_smaller", Aspect::NotSmaller)];
    let aspect = match site.opset >= 18 {
        true => site.attrs.keyword("keep_aspect_ratio_policy", Aspect::Stretch, &words)?,
        false => Aspect::Stretch,
    };
    let sizes = site.dims(v, "sizes")?;
    if sizes.len() != axes.len() {
        let why = format!("{} sizes are given for {} axes", sizes.len(), axes.len());
        return Err(site.error("import.resize", why));
    }
    let (mut scales, mut out) = (vec![1.0f32; shape.len()], shape.to_vec());
    for (&axis, size) in axes.iter().zip(&sizes) {
        out[axis] = size.clone();
        scales[axis] = match (size.as_const(), shape[axis].as_const()) {
            _ if *size == shape[axis] => 1.0,
            (Some(n), Some(d)) => (n as f64 / d.max(1) as f64) as f32,
            _ => {
                let (symbol, _) = if size.as_const().is_none() { (size, 0) } else { (&shape[axis], 0) };
                return Err(site
                    .error("import.symbolic", format!("the scale {size} / {} is not known when compiling", shape[axis]))
                    .note(format!("give its number with --dim {symbol}=N")));
            }
        };
    }
    if aspect == Aspect::Stretch {
        return Ok((scales, out));
    }
    // One scale for all axes: the smallest, or the largest.
    let ratios =
        axes.iter().map(|&a| out[a].as_const().unwrap_or(1) as f64 / shape[a].as_const().unwrap_or(1).max(1) as f64);
    let scale = match aspect {
        Aspect::NotSmaller => ratios.fold(0.0, f64::max),
        Aspect::NotLarger | Aspect::Stretch => ratios.fold(f64::INFINITY, f64::min),
    };
    for &axis in axes {
        let Some(n) = shape[axis].as_const() else { return Err(unscalable(site, &shape[axis], scale as f32)) };
        scales[axis] = scale as f32;
        out[axis] = Dim::Const((n as f64 * scale + 0.5).floor() as i64);
    }
    Ok((scales, out))
}
