//! A convolution as the analyses see it, chains of convolutions, and what they cost.

use crate::rule::{Decline, declined};
use lehr_ir::ops::Conv;
use lehr_ir::tensor::ConstValue;
use lehr_ir::{DType, Diag, Graph, NodeId, Op, Tensor, TensorType};
use serde::Serialize;

/// Constants larger than this are not analysed.
const MAX_WEIGHTS: u64 = 1 << 28;

/// A convolution over images with constant weights and known sizes.
#[derive(Clone, Debug)]
pub struct ConvLayer {
    /// The ONNX node's name.
    pub name: String,
    pub stage: Stage,
    /// One number per output channel.
    pub bias: Option<Tensor>,
    /// Channels, height, width.
    pub input: [usize; 3],
}

/// One convolution of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub conv: Conv,
    /// O, I/groups, height, width.
    pub weights: Tensor,
}

/// What one convolution takes, per image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StageCost {
    /// Height and width, as for all pairs here.
    pub kernel: [usize; 2],
    pub channels_in: usize,
    pub channels_out: usize,
    pub groups: usize,
    pub output: [usize; 2],
    pub parameters: u64,
    /// kernel_h * kernel_w * channels_in/groups * channels_out * output_h * output_w.
    pub multiply_adds: u64,
}

/// What a chain of convolutions takes, per image; biases are not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainCost {
    pub receptive_field: [usize; 2],
    pub stages: Vec<StageCost>,
    pub parameters: u64,
    pub multiply_adds: u64,
}

/// `floor((m + padding - dilation*(kernel - 1) - 1) / stride) + 1`, where `padding` is that of both sides together; `None` if the
/// window does not fit.
pub fn output_size(m: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    let covered = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    Some(m.checked_add(padding)?.checked_sub(covered)?.checked_div(stride)? + 1)
}

/// A convolution without its weights: what costs depend on.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub conv: Conv,
    /// Shape of the weights.
    pub weights: [usize; 4],
}

impl Shape {
    fn cost(&self, size: [usize; 2]) -> Option<StageCost> {
        let (conv, [outputs, inputs, height, width]) = (&self.conv, self.weights);
        let kernel = [height, width];
        let along = |a: usize| {
            output_size(size[a], kernel[a], conv.strides[a], conv.pads[a] + conv.pads[2 + a], conv.dilations[a])
        };
        let output = [along(0)?, along(1)?];
        let parameters = (outputs * inputs * height * width) as u64;
        Some(StageCost {
            kernel,
            channels_in: inputs * conv.groups,
            channels_out: outputs,
            groups: conv.groups,
            output,
            parameters,
            multiply_adds: parameters * (output[0] * output[1]) as u64,
        })
    }
}

impl Stage {
    pub(super) fn shape(&self) -> Shape {
        let &[o, i, h, w] = self.weights.shape() else { unreachable!("a convolution over images") };
        Shape { conv: self.conv.clone(), weights: [o, i, h, w] }
    }

    /// Height and width of the kernel.
    pub fn kernel(&self) -> [usize; 2] {
        let [_, _, h, w] = self.shape().weights;
        [h, w]
    }
}

impl ChainCost {
    /// The cost of stages one after the other on an image of `size`; `None` where a window does not fit.
    pub(super) fn of(stages: &[Shape], size: [usize; 2]) -> Option<ChainCost> {
        let (mut field, mut step, mut at) = ([1, 1], [1, 1], size);
        let mut costs = vec![];
        for stage in stages {
            for a in 0..2 {
                field[a] += (stage.weights[2 + a] - 1) * stage.conv.dilations[a] * step[a];
                step[a] *= stage.conv.strides[a];
            }
            let cost = stage.cost(at)?;
            at = cost.output;
            costs.push(cost);
        }
        let parameters = costs.iter().map(|c| c.parameters).sum();
        let multiply_adds = costs.iter().map(|c| c.multiply_adds).sum();
        Some(ChainCost { receptive_field: field, stages: costs, parameters, multiply_adds })
    }
}

impl ConvLayer {
    /// The convolution at a node.
    ///
    /// # Errors
    /// `NoMatch` for other operators; a reason if its weights or sizes are not known, or it is not over images.
    pub fn at(graph: &Graph, id: NodeId) -> Result<ConvLayer, Decline> {
        let node = graph.node(id);
        let Op::Conv(conv) = &node.op else { return Err(Decline::NoMatch) };
        let operand = |i: usize| node.inputs.get(i).copied().flatten();
        let (Some(x), Some(w)) = (operand(0), operand(1)) else { return Err(Decline::NoMatch) };
        let constant = |v| graph.constant(v).filter(|c| c.expansion() <= MAX_WEIGHTS).map(|c| c.tensor());
        let x = graph.ty(x);
        if x.rank() != 4 {
            declined!("its input {x} is no image");
        }
        let Some(weights) = constant(w) else { declined!("its weights are not constant") };
        let bias = match operand(2) {
            None => None,
            Some(b) => match constant(b) {
                Some(b) => Some(b),
                None => declined!("its bias is not constant"),
            },
        };
        let known = |a: usize| x.shape[a].as_const().and_then(|d| usize::try_from(d).ok());
        let (Some(c), Some(h), Some(w)) = (known(1), known(2), known(3)) else {
            declined!("the size of its input {x} is not known: give --dim");
        };
        if weights.is_empty() || h == 0 || w == 0 {
            declined!("it has no elements");
        }
        if !weights.to_f64().iter().all(|v| v.is_finite()) {
            declined!("its weights are not all finite");
        }
        let name = crate::rewrite::node_name(graph, id);
        Ok(ConvLayer { name, stage: Stage { conv: conv.clone(), weights }, bias, input: [c, h, w] })
    }

    /// Height and width of the input.
    pub fn size(&self) -> [usize; 2] {
        [self.input[1], self.input[2]]
    }

    pub fn dtype(&self) -> DType {
        self.stage.weights.dtype()
    }

    /// The cost of the convolution as it is.
    pub fn cost(&self) -> Result<ChainCost, Decline> {
        self.chain_cost(&[self.stage.shape()])
    }

    /// The cost of a chain on this layer's input.
    pub(super) fn chain_cost(&self, stages: &[Shape]) -> Result<ChainCost, Decline> {
        let cost = ChainCost::of(stages, self.size());
        cost.ok_or_else(|| Decline::Reason("a window is larger than what it reads".into()))
    }

    /// A graph of one input and the stages, the last of which adds the bias: what is compared, and timed.
    pub fn chain_graph(&self, stages: &[Stage], input: TensorType) -> Result<Graph, Diag> {
        chain_graph(stages, self.bias.as_ref(), input)
    }

    /// The type of one image.
    pub fn input_type(&self) -> TensorType {
        let [c, h, w] = self.input.map(|d| d as i64);
        TensorType::new(self.dtype(), [1, c, h, w])
    }
}

pub(super) fn chain_graph(stages: &[Stage], bias: Option<&Tensor>, input: TensorType) -> Result<Graph, Diag> {
    let mut g = Graph::new("chain");
    let mut x = g.add_input("x", input);
    let dense = |tensor: &Tensor| ConstValue::Dense { tensor: tensor.clone(), name: None };
    for (k, stage) in stages.iter().enumerate() {
        let mut inputs = vec![x, g.add_const(dense(&stage.weights))];
        inputs.extend(bias.filter(|_| k + 1 == stages.len()).map(|b| g.add_const(dense(b))));
        x = g.add1(stage.conv.clone(), &inputs, vec![])?;
    }
    g.add_output("y", x);
    Ok(g)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A layer with these weights.
    pub fn layer(weights: Tensor, input: [usize; 3], pads: [usize; 4], stride: usize, dilation: usize) -> ConvLayer {
        let groups = input[0] / weights.shape()[1];
        let conv = Conv { strides: vec![stride; 2], pads: pads.to_vec(), dilations: vec![dilation; 2], groups };
        ConvLayer { name: "layer".into(), stage: Stage { conv, weights }, bias: None, input }
    }
}
