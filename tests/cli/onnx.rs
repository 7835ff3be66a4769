//! The few ONNX messages that the tests of the command line need, encoded by hand.

/// A field that holds bytes: a text or a message.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut n = content.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(content);
    out
}

/// A field that holds a number below 128.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn text(field: u8, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

/// A node by operator and name.
pub fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> Vec<u8> {
    let inputs = inputs.iter().map(|i| text(1, i));
    let outputs = outputs.iter().map(|o| text(2, o));
    inputs.chain(outputs).chain([text(3, name), text(4, op)]).flatten().collect()
}

/// An input or output of type float, or int64 where the name starts with "int"; dimensions are numbers or names.
pub fn value(name: &str, dims: &[&str]) -> Vec<u8> {
    let dim = |d: &&str| bytes(1, &d.parse().map_or_else(|_| text(2, d), |n| number(1, n)));
    let shape: Vec<u8> = dims.iter().flat_map(dim).collect();
    let dtype = if name.starts_with("int") { 7 } else { 1 };
    let tensor = [number(1, dtype), bytes(2, &shape)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

/// A model of opset 17.
pub fn model(nodes: &[Vec<u8>], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Vec<u8> {
    let nodes = nodes.iter().map(|n| bytes(1, n));
    let inputs = inputs.iter().map(|v| bytes(11, v));
    let outputs = outputs.iter().map(|v| bytes(12, v));
    let graph: Vec<u8> = nodes.chain([text(2, "g")]).chain(inputs).chain(outputs).flatten().collect();
    [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 17))].concat()
}

/// A tensor of floats of rank 1.
pub fn tensor(name: &str, values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    [number(1, values.len() as u8), number(2, 1), text(8, name), bytes(9, &raw)].concat()
}
