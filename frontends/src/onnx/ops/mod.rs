//! A row per operator and opset range: its name, the opsets for which the row holds, how many operands it takes,
//! and what imports it. The tables lie with the functions they name, a file per family.

mod conv;
mod create;
mod elementwise;
mod gather;
mod linear;
mod loss;
mod norm;
mod pad;
mod pool;
mod reduce;
mod resize;
mod shape;
mod slice;
mod softmax;

use super::import::LATEST_OPSET;
use super::site::{Result, Site};
use lehr_ir::op::{AttrValue, Attrs, Bits};
use lehr_ir::ops::{Binary, BinaryFn, ReduceFn, Unary, UnaryFn};
use lehr_ir::{Diag, Op, ValueId};

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    pub op: &'static str,
    /// First and last opset.
    pub opsets: (i64, i64),
    /// Fewest and most operands, counting those left out by an empty name.
    pub inputs: (usize, usize),
    pub how: How,
}

/// What imports an operator.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// An elementwise function; its parameters are attributes of the same names.
    Unary(UnaryFn),
    Binary(BinaryFn),
    /// A reduction whose axes are an attribute, or an operand.
    ReduceByAttr(ReduceFn),
    ReduceByOperand(ReduceFn),
    Own(fn(&mut Site) -> Result<Vec<ValueId>>),
}

/// The last opset known.
const MAX: i64 = LATEST_OPSET;
/// Any number of operands.
const ANY: usize = usize::MAX;

const fn row(op: &'static str, opsets: (i64, i64), inputs: (usize, usize), how: How) -> Row {
    Row { op, opsets, inputs, how }
}

/// All rows, by family.
static TABLES: &[&[Row]] = &[
    elementwise::ROWS,
    conv::ROWS,
    pool::ROWS,
    linear::ROWS,
    norm::ROWS,
    softmax::ROWS,
    reduce::ROWS,
    shape::ROWS,
    slice::ROWS,
    pad::ROWS,
    gather::ROWS,
    create::ROWS,
    resize::ROWS,
    loss::ROWS,
];

/// The row for an operator of ONNX's own domain in an opset.
pub fn find(op: &str, opset: i64) -> Result<&'static Row> {
    let rows = || TABLES.iter().copied().flatten().filter(|r| r.op == op);
    if let Some(row) = rows().find(|r| r.opsets.0 <= opset && opset <= r.opsets.1) {
        return Ok(row);
    }
    let ranges: Vec<String> = rows().map(|r| format!("{} to {}", r.opsets.0, r.opsets.1)).collect();
    let unsupported = |why: String| Diag::new("import.unsupported-op", why);
    if ranges.is_empty() {
        return Err(unsupported(format!("the operator {op} (opset {opset}) is not supported"))
            .note("export the model without it, or cut the part of the model that needs it"));
    }
    Err(unsupported(format!("the operator {op} is supported in opsets {}, not in {opset}", ranges.join(", ")))
        .note("convert the model with ONNX's version converter"))
}

/// The operator that is imported in this very way in an opset: what an exporter calls it.
pub fn name_of(opset: i64, how: impl Fn(How) -> bool) -> Option<&'static str> {
    let holds = |r: &&Row| r.opsets.0 <= opset && opset <= r.opsets.1 && how(r.how);
    TABLES.iter().copied().flatten().find(holds).map(|r| r.op)
}

impl Row {
    /// The number of operands, in words.
    pub fn arity(&self) -> String {
        match self.inputs {
            (a, b) if a == b => a.to_string(),
            (a, ANY) => format!("{a} or more"),
            (a, b) => format!("{a} to {b}"),
        }
    }

    pub fn import(&self, site: &mut Site) -> Result<Vec<ValueId>> {
        match self.how {
            How::Unary(f) => unary(site, f),
            How::Binary(f) => {
                let operands = [site.x(0)?, site.x(1)?];
                Ok(vec![site.op(Binary { f }, &operands)?])
            }
            How::ReduceByAttr(f) => reduce::by_attr(site, f),
            How::ReduceByOperand(f) => reduce::by_operand(site, f),
            How::Own(f) => f(site),
        }
    }
}

/// Parameters that the node does not give keep the defaults of the IR's function, which are ONNX's.
fn unary(site: &mut Site, f: UnaryFn) -> Result<Vec<ValueId>> {
    let info = f.info();
    let mut given = vec![];
    for &name in info.attrs {
        if let Some(v) = site.attrs.opt_float(name)? {
            given.push((name.to_string(), AttrValue::Float(Bits(v.to_bits()))));
        }
    }
    let op = match given.is_empty() {
        true => Op::from(Unary { f }),
        false => match Op::parse(info.name, &mut Attrs(given)) {
            Some(Ok(op)) => op,
            Some(Err(why)) => return Err(site.error("import.attribute", why)),
            None => return Err(site.error("import.attribute", format!("{} takes no attributes", info.name))),
        },
    };
    let x = site.x(0)?;
    Ok(vec![site.op(op, &[x])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_do_not_overlap() {
        let rows: Vec<&Row> = TABLES.iter().copied().flatten().collect();
        for (i, a) in rows.iter().enumerate() {
            assert!(a.opsets.0 <= a.opsets.1 && a.inputs.0 <= a.inputs.1, "{a:?}");
            for b in &rows[..i] {
                let apart = a.op != b.op || a.opsets.1 < b.opsets.0 || b.opsets.1 < a.opsets.0;
                assert!(apart, "{} has two rows for one opset", a.op);
            }
        }
    }
}
