//! Groups of elementwise operators alone: one loop nest over the result, with neighbouring axes merged where every
//! operand allows it, so that a dense group is a single vector loop.

use super::cx::NodeCx;
use super::view::{Layout, View};
use crate::kernel::{Expr, LoopKind};

pub fn lower(cx: &mut NodeCx, shape: &[usize], cost: i64) {
    let mut k = cx.kernel("");
    let axes = match k.strided_views() {
        Some(views) => merge_axes(shape, &views),
        None => (0..shape.len()).map(|d| vec![d]).collect(),
    };
    let dims: Vec<usize> = axes.iter().map(|a| a.iter().map(|&d| shape[d]).product()).collect();
    k.nest(&dims, cost, LoopKind::Vector, |k, merged| {
        let mut coords = vec![Expr::i64(0); shape.len()];
        for (axis, c) in axes.iter().zip(merged) {
            // A merged axis runs in its last member that is not 1, whose stride it has; the others stay at 0.
            if let Some(&d) = axis.iter().rfind(|&&d| shape[d] != 1) {
                coords[d] = c.clone();
            }
        }
        k.store_all(&coords);
    });
    k.finish();
}

/// Groups of adjacent axes that all views step through as if they were one.
fn merge_axes(shape: &[usize], views: &[View]) -> Vec<Vec<usize>> {
    let strides: Vec<Vec<i64>> = views.iter().map(|v| aligned_strides(v, shape)).collect();
    merged(shape, &strides)
}

/// Likewise by the views' strides along the axes of the result.
pub fn merged(shape: &[usize], strides: &[Vec<i64>]) -> Vec<Vec<usize>> {
    let mut axes: Vec<Vec<usize>> = vec![];
    for d in 0..shape.len() {
        let Some(axis) = axes.last_mut() else {
            axes.push(vec![d]);
            continue;
        };
        let last = axis.iter().rfind(|&&e| shape[e] != 1).copied();
        let joins = shape[d] == 1 || last.is_none_or(|e| strides.iter().all(|s| s[e] == s[d] * shape[d] as i64));
        if joins { axis.push(d) } else { axes.push(vec![d]) }
    }
    axes
}

/// A view's strides along the axes of the result: 0 where it broadcasts.
pub fn aligned_strides(view: &View, shape: &[usize]) -> Vec<i64> {
    let Layout::Strided { strides, .. } = &view.layout else { unreachable!("only strided views are merged") };
    aligned(&view.shape, strides, shape)
}

/// The strides of a tensor of its own shape along the axes of a larger one.
pub fn aligned(own: &[usize], strides: &[i64], shape: &[usize]) -> Vec<i64> {
    let skip = shape.len() - own.len();
    let own = own.iter().zip(strides).map(|(&n, &s)| if n == 1 { 0 } else { s });
    std::iter::repeat_n(0, skip).chain(own).collect()
}
