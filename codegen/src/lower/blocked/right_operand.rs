//! The right operand of a matrix product: in the order in which tiles read it, packed when compiling or in the run, or as it is.

use super::{Parts, bytes, leaf_diag};
use crate::kernel::{Access, Expr, LeafArg};
use crate::lower::cx::NodeCx;
use crate::lower::view::View;
use crate::program::BufferId;
use crate::x86::{CompactForm, LeafSpec, MatrixLayout, Panel, RightStrides, pack_gemm_b};
use lehr_ir::{DType, Diag};

/// How it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `[group][K][blocks][lanes]`: a tile reads one stream.
    Together,
    /// `[block][K][lanes]`: a tile reads a stream for each block. One core reads 17.7 GB/s so, and 15.7 from one stream.
    Apart,
    /// `[K, N]`, as it was given.
    InPlace,
    /// The same, and the first tile of a chunk packs each group for the others, into a panel of the thread.
    Panels,
    /// A stream for each block, five numbers in the place of four, and scales ahead of every phase.
    Compact(CompactForm),
}

pub struct Right {
    pub buf: BufferId,
    pub form: Form,
    inner: usize,
    columns: usize,
    lanes: usize,
    /// Elements from matrix to matrix; 0 where there is one for all.
    matrix: usize,
}

/// Offsets in a leaf are 32-bit: blocks that lie further apart than this are not streams of their own.
const MAX_APART: usize = 1 << 26;

impl Right {
    /// A constant, packed now. `values` are `[K, N]` or as the layout says.
    pub fn constant(
        cx: &mut NodeCx,
        values: &[f32],
        layout: MatrixLayout,
        (inner, columns): (usize, usize),
        groups: &Parts,
        apart: bool,
    ) -> Right {
        let lanes = cx.low.isa().lanes();
        let apart = apart && inner * lanes <= MAX_APART;
        let (form, split) = match apart {
            true => (Form::Apart, vec![1; columns.div_ceil(lanes)]),
            false => (Form::Together, groups.list()),
        };
        let size = inner * columns;
        let matrices = values.len() / size;
        let mut packed = vec![];
        for one in values.chunks_exact(size) {
            packed.extend(pack_gemm_b(one, inner, columns, layout, lanes, &split));
        }
        let matrix = if matrices == 1 { 0 } else { packed.len() / 4 / matrices };
        let buf = cx.low.add_weights(DType::F32, packed.len() / 4, packed.into());
        Right { buf, form, inner, columns, lanes, matrix }
    }

    /// A constant that a product of few rows reads from memory, packed closely. `None` where that would change it too much.
    pub fn compact(
        cx: &mut NodeCx,
        values: &[f32],
        layout: MatrixLayout,
        (inner, columns): (usize, usize),
        phase: usize,
    ) -> Option<Right> {
        let lanes = cx.low.isa().lanes();
        let form = CompactForm { inner, phase, lanes };
        if form.words(inner) > MAX_APART || values.len() != inner * columns {
            return None;
        }
        let packed = form.pack(values, layout)?;
        let buf = cx.low.add_weights(DType::F32, packed.len() / 4, packed.into());
        Some(Right { buf, form: Form::Compact(form), inner, columns, lanes, matrix: 0 })
    }

    /// As it lies: `[K, N]` for each matrix.
    pub fn in_place(cx: &NodeCx, view: &View, (inner, columns): (usize, usize)) -> Right {
        let matrix = if view.len() == inner * columns { 0 } else { inner * columns };
        let (buf, lanes) = (view.dense_buffer(), cx.low.isa().lanes());
        Right { buf, form: Form::InPlace, inner, columns, lanes, matrix }
    }

    /// As it lies, packed by tiles into panels.
    pub fn panels(cx: &NodeCx, view: &View, shape: (usize, usize)) -> Right {
        Right { form: Form::Panels, ..Right::in_place(cx, view, shape) }
    }

    /// Packed by a kernel of its own, group by group.
    pub fn packed(
        cx: &mut NodeCx,
        view: &View,
        transposed: bool,
        (inner, columns): (usize, usize),
        groups: &Parts,
    ) -> Result<Right, Diag> {
        let lanes = cx.low.isa().lanes();
        let matrices = view.len() / (inner * columns);
        let size = inner * columns.next_multiple_of(lanes);
        let buf = cx.scratch(DType::F32, matrices * size);
        let right =
            Right { buf, form: Form::Together, inner, columns, lanes, matrix: if matrices == 1 { 0 } else { size } };
        let panel = |columns: usize| {
            let from = bytes(if transposed { inner } else { right.columns } as i64);
            LeafSpec::Panel(Panel { rows: inner as u32, columns: columns as u32, from, transposed })
        };
        // Groups of either size, and the last one, which may end inside a block.
        let mut leaves = vec![];
        let last_blocks = groups.sizes().last().map_or(1, |(size, _)| *size);
        let last = columns - (groups.whole() - last_blocks) * lanes;
        let sizes = groups.sizes().into_iter().map(|(size, _)| size * lanes);
        for columns in sizes.chain([last]) {
            leaves.push(cx.low.leaf(&panel(columns)).map_err(|e| leaf_diag(cx, &e))?);
        }
        let last = leaves.pop().expect("the last group has a leaf");
        let mut k = cx.kernel("_pack");
        let p = k.parallel((matrices * groups.total()) as i64, (groups.size * lanes * inner) as i64);
        let matrix = k.let_(p.clone() / groups.total() as i64);
        let group = k.let_(p % groups.total() as i64);
        let (from, to) = (k.param_for(view.dense_buffer(), Access::Read), k.param_for(buf, Access::Write));
        groups.each_kind(&mut k, &group, |k, size, is_last| {
            let leaf = if is_last { last } else { leaves[size] };
            let block = k.let_(groups.start(size, group.clone()));
            let column = block.clone() * lanes as i64;
            let source = column * if transposed { inner as i64 } else { 1 };
            let args = vec![
                LeafArg::Address { buf: from, index: matrix.clone() * (inner * columns) as i64 + source },
                LeafArg::Address {
                    buf: to,
                    index: matrix.clone() * right.matrix as i64 + block * (inner * lanes) as i64,
                },
            ];
            k.leaf(leaf, args);
        });
        k.finish();
        Ok(right)
    }

    /// Where a tile of so many blocks finds its vectors.
    pub fn strides(&self, blocks: usize) -> RightStrides {
        let (step, block, exact) = match self.form {
            Form::Together => (blocks * self.lanes, self.lanes, false),
            Form::Apart => (self.lanes, self.inner * self.lanes, false),
            Form::InPlace | Form::Panels => (self.columns, self.lanes, true),
            Form::Compact(form) => (0, form.words(self.inner), false),
        };
        let compact = matches!(self.form, Form::Compact(_));
        let packs = self.form == Form::Panels;
        RightStrides { step: bytes(step as i64), block: bytes(block as i64), exact, compact, packs }
    }

    /// Where the others find them that a tile has packed.
    pub fn panel_strides(&self, blocks: usize) -> RightStrides {
        Right { form: Form::Together, ..*self }.strides(blocks)
    }

    /// Position of the first vector of a group of so many blocks that starts at `block`, from row `inner` of the matrix on, where a phase
    /// begins.
    pub fn position(&self, matrix: &Expr, block: &Expr, blocks: usize, inner: &Expr) -> Expr {
        let (per_block, per_row) = match self.form {
            Form::Together => (self.inner * self.lanes, blocks * self.lanes),
            Form::Apart => (self.inner * self.lanes, self.lanes),
            Form::InPlace | Form::Panels => (self.lanes, self.columns),
            Form::Compact(form) => {
                let phases = inner.clone() / form.phase as i64;
                return block.clone() * form.words(self.inner) as i64 + phases * form.words(form.phase) as i64;
            }
        };
        let matrix = matrix.clone() * self.matrix as i64;
        matrix + block.clone() * per_block as i64 + inner.clone() * per_row as i64
    }
}
