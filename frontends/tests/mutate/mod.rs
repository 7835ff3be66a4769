//! Hostile models by number: small real ones, changed in their bytes (cut, flipped, spliced) and in their fields
//! (dimensions, types, names, attribute values). The same number always gives the same model.
#![allow(dead_code)] // each test file uses some of it

use super::common;
use lehr_frontends::onnx::proto::*;
use prost::Message;

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.below(list.len())) }
    }

    /// Numbers at which arithmetic goes wrong.
    fn number(&mut self) -> i64 {
        if self.below(2) == 0 {
            return self.below(9) as i64 - 3;
        }
        const AWKWARD: &[i64] = &[
            0,
            1,
            -1,
            2,
            3,
            7,
            13,
            -2,
            -7,
            64,
            255,
            1 << 16,
            1 << 31,
            (1 << 31) - 1,
            -(1 << 31),
            1 << 40,
            1 << 62,
            i64::MAX,
            i64::MIN,
        ];
        AWKWARD[self.below(AWKWARD.len())]
    }
}

/// The bytes of case number `case`: a seed model, changed in its fields, in its bytes, or in both.
pub fn mutated(seeds: &[(&str, ModelProto)], case: u64) -> Vec<u8> {
    let dice = &mut Dice(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6c65_6872);
    let mut proto = seeds[dice.below(seeds.len())].1.clone();
    if dice.below(4) > 0 {
        keep_one_output(&mut proto, dice);
    }
    if dice.below(4) == 0 {
        change_floats(&mut proto, dice);
    }
    if dice.below(8) > 0 {
        for _ in 0..=dice.below(3) {
            change_field(&mut proto, dice);
        }
    }
    let mut bytes = proto.encode_to_vec();
    match dice.below(12) {
        0 => bytes.truncate(dice.below(bytes.len())),
        1 => {
            for _ in 0..=dice.below(4) {
                let at = dice.below(bytes.len());
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        2 => {
            let other = seeds[dice.below(seeds.len())].1.encode_to_vec();
            let (from, to) = (dice.below(other.len()), dice.below(bytes.len()));
            let len = dice.below(64).min(other.len() - from);
            bytes.splice(to..(to + dice.below(32)).min(bytes.len()), other[from..from + len].iter().copied());
        }
        _ => {}
    }
    bytes
}

/// Operators that one of the same shape of node may become.
const OPERATORS: &[&str] = &[
    "Relu",
    "Abs",
    "Sqrt",
    "Not",
    "BitwiseNot",
    "Sign",
    "Floor",
    "Reciprocal",
    "Selu",
    "ThresholdedRelu",
    "IsInf",
    "Tan",
    "Swish",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Max",
    "Min",
    "And",
    "Xor",
    "BitwiseOr",
    "Equal",
    "GreaterOrEqual",
    "Pow",
    "BitShift",
    "Clip",
    "Where",
    "Gather",
    "GatherElements",
    "GatherND",
    "ScatterElements",
    "ScatterND",
    "OneHot",
    "Expand",
    "Tile",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Concat",
    "CumSum",
    "Trilu",
    "EyeLike",
    "ConstantOfShape",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ArgMin",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
    "MatMul",
    "Gemm",
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "LpPool",
    "GlobalAveragePool",
    "TopK",
    "Size",
    "Shape",
    "Dropout",
    "Identity",
    "LayerNormalization",
    "InstanceNormalization",
    "Split",
    "Slice",
    "Pad",
    "Resize",
];

/// Leaves one node of the model and what it is computed from: small models get further than large ones.
fn keep_one_output(proto: &mut ModelProto, dice: &mut Dice) {
    let Some(graph) = &mut proto.graph else { return };
    let Some(last) = dice.pick(&graph.node).cloned() else { return };
    let mut wanted = last.input.clone();
    let mut kept = vec![last.clone()];
    while let Some(name) = wanted.pop() {
        let Some(node) = graph.node.iter().find(|n| n.output.contains(&name)) else { continue };
        if !kept.contains(node) {
            wanted.extend(node.input.iter().cloned());
            kept.push(node.clone());
        }
    }
    kept.reverse();
    let value = |name: &String| ValueInfoProto { name: name.clone(), r#type: None };
    graph.output = last.output.iter().filter(|name| !name.is_empty()).map(value).collect();
    graph.node = kept;
}

/// Makes all f32 inputs and weights another type. The bytes of weights are read as that type: any number may come out.
fn change_floats(proto: &mut ModelProto, dice: &mut Dice) {
    // f64, f16, bf16, i32, i64, u8, i8, u64, bool.
    let (to, width) = [(11, 8), (10, 2), (16, 2), (6, 4), (7, 8), (2, 1), (3, 1), (13, 8), (9, 1)][dice.below(9)];
    let Some(graph) = &mut proto.graph else { return };
    for input in &mut graph.input {
        if let Some(type_proto::Value::TensorType(t)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
            && t.elem_type == 1
        {
            t.elem_type = to;
        }
    }
    for t in graph.initializer.iter_mut().filter(|t| t.data_type == 1) {
        let elements: i64 = t.dims.iter().product();
        let raw = t.raw_data.clone().unwrap_or_default();
        t.data_type = to;
        t.raw_data = Some(
            raw.iter().copied().cycle().take(if raw.is_empty() { 0 } else { elements as usize * width }).collect(),
        );
    }
}

fn change_field(proto: &mut ModelProto, dice: &mut Dice) {
    if dice.below(12) == 0 {
        if let Some(import) = proto.opset_import.first_mut() {
            import.version = if dice.below(4) == 0 { dice.number() } else { 1 + dice.below(29) as i64 };
        }
        return;
    }
    let Some(graph) = &mut proto.graph else { return };
    match dice.below(8) {
        0 => change_tensor(&mut graph.initializer, dice),
        1 | 2 => change_type(&mut graph.input, dice),
        3 => change_names(graph, dice),
        4 => {
            let at = dice.below(graph.node.len());
            if let (Some(node), Some(op)) = (graph.node.get_mut(at), dice.pick(OPERATORS)) {
                node.op_type = op.to_string();
            }
        }
        5 if !graph.node.is_empty() => {
            let copy = graph.node[dice.below(graph.node.len())].clone();
            let at = dice.below(graph.node.len());
            graph.node.insert(at, copy);
        }
        _ => {
            let at = dice.below(graph.node.len());
            if let Some(node) = graph.node.get_mut(at) {
                change_attribute(&mut node.attribute, dice);
            }
        }
    }
}

fn change_tensor(tensors: &mut [TensorProto], dice: &mut Dice) {
    let at = dice.below(tensors.len());
    let Some(t) = tensors.get_mut(at) else { return };
    match dice.below(5) {
        0 => t.data_type = dice.below(30) as i32,
        1 => t.dims.push(dice.number()),
        2 => drop(t.dims.pop()),
        3 => {
            // A list of numbers keeps its length and changes its contents: shapes, pads and axes are such lists.
            let mut raw = t.raw_data.clone().unwrap_or_default().to_vec();
            if raw.len() >= 8 {
                let at = dice.below(raw.len() / 8) * 8;
                raw[at..at + 8].copy_from_slice(&dice.number().to_le_bytes());
            }
            t.raw_data = Some(raw.into());
        }
        _ => {
            let at = dice.below(t.dims.len());
            let n = dice.number();
            if let Some(d) = t.dims.get_mut(at) {
                *d = n;
            }
        }
    }
}

fn change_type(values: &mut [ValueInfoProto], dice: &mut Dice) {
    let at = dice.below(values.len());
    let Some(ty) = values.get_mut(at).and_then(|v| v.r#type.as_mut()) else { return };
    let Some(type_proto::Value::TensorType(t)) = &mut ty.value else { return };
    if dice.below(4) == 0 {
        t.elem_type = dice.below(30) as i32;
        return;
    }
    let dims = &mut t.shape.get_or_insert_default().dim;
    let text = dice.number().to_string();
    let new = common::dim(["n", "m", "?", "7", &text][dice.below(5)]);
    match dice.below(3) {
        0 => dims.push(new),
        1 => drop(dims.pop()),
        _ => {
            let at = dice.below(dims.len());
            if let Some(d) = dims.get_mut(at) {
                *d = new;
            }
        }
    }
}

fn change_names(graph: &mut GraphProto, dice: &mut Dice) {
    let names: Vec<String> = graph
        .node
        .iter()
        .flat_map(|n| n.input.iter().chain(&n.output).cloned())
        .chain([String::new(), "elsewhere".into()])
        .collect();
    let at = dice.below(graph.node.len());
    let Some(node) = graph.node.get_mut(at) else { return };
    let list = if dice.below(3) > 0 { &mut node.input } else { &mut node.output };
    let name = names[dice.below(names.len())].clone();
    match dice.below(4) {
        0 => list.push(name),
        1 => drop(list.pop()),
        _ => {
            let at = dice.below(list.len());
            if let Some(slot) = list.get_mut(at) {
                *slot = name;
            }
        }
    }
}

fn change_attribute(list: &mut Vec<AttributeProto>, dice: &mut Dice) {
    let at = dice.below(list.len());
    let Some(a) = list.get_mut(at) else { return };
    let n = dice.number();
    match dice.below(8) {
        0 => drop(list.remove(at)),
        1 => a.r#type = dice.below(16) as i32,
        2 => a.f = [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN, 1e-40][dice.below(6)],
        3 => a.ints.push(n),
        4 => drop(a.ints.pop()),
        5 => a.s = ["", "SAME_UPPER", "VALID", "reflect", "cubic", "ij,jk->ik", "\u{fffd}"][dice.below(7)].into(),
        _ => {
            a.i = n;
            let at = dice.below(a.ints.len());
            if let Some(v) = a.ints.get_mut(at) {
                *v = n;
            }
        }
    }
}

/// The most memory this process had, as Linux tells it; 0 elsewhere.
pub fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
