//! Sources of values: graph inputs and constants. They are nodes like any other, so that every value has a
//! defining node; their types are their own.

use crate::diag::Diag;
use crate::op::{AttrValue, In, OpDef, OpInfo, OpMeta};
use crate::tensor::{ConstValue, Tensor};
use crate::types::TensorType;
use std::sync::Arc;

/// An input of the graph (or of a region).
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub ty: TensorType,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Const {
    pub value: Arc<ConstValue>,
}

impl OpMeta for Input {
    fn info(&self) -> OpInfo {
        OpInfo { name: "input", doc: "An input of the graph.", operands: &[], results: &["y"], attrs: &[] }
    }
    fn attrs(&self) -> Vec<(&'static str, AttrValue)> {
        vec![]
    }
}

impl OpDef for Input {
    fn infer(&self, _: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        Ok(vec![self.ty.clone()])
    }
    fn eval(&self, _: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Err("a graph input has no value of its own".into())
    }
}

impl OpMeta for Const {
    fn info(&self) -> OpInfo {
        OpInfo { name: "const", doc: "A constant tensor.", operands: &[], results: &["y"], attrs: &[] }
    }
    fn attrs(&self) -> Vec<(&'static str, AttrValue)> {
        vec![]
    }
}

impl OpDef for Const {
    fn infer(&self, _: In<TensorType>) -> Result<Vec<TensorType>, Diag> {
        Ok(vec![self.value.ty()])
    }
    fn eval(&self, _: In<Tensor>, _: &[TensorType]) -> Result<Vec<Tensor>, String> {
        Ok(vec![self.value.tensor()])
    }
}
