//! LeNet-5 of LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), in
//! its usual modern reading: images of 28x28 padded to 32x32, a full second convolution, and a softmax at the end.

use super::build::{Conv, Net, Pool};
use lehr_ir::Graph;
use lehr_ir::ops::UnaryFn;

pub fn build(seed: u64) -> Graph {
    let mut net = Net::new("lenet5", seed);
    let x = net.image("image", 1, 28, 28);
    let x = net.conv("c1", x, Conv { channels: 6, kernel: 5, pad: 2, ..Conv::default() });
    let x = net.activation("c1/tanh", x, UnaryFn::Tanh);
    let x = net.avg_pool("s2", x, Pool { kernel: 2, stride: 2, pad: 0 });
    let x = net.conv("c3", x, Conv { channels: 16, kernel: 5, ..Conv::default() });
    let x = net.activation("c3/tanh", x, UnaryFn::Tanh);
    let x = net.avg_pool("s4", x, Pool { kernel: 2, stride: 2, pad: 0 });
    let x = net.flatten("flat", x);
    let x = net.linear("f5", x, 120);
    let x = net.activation("f5/tanh", x, UnaryFn::Tanh);
    let x = net.linear("f6", x, 84);
    let x = net.activation("f6/tanh", x, UnaryFn::Tanh);
    let x = net.linear("f7", x, 10);
    let x = net.softmax("probabilities", x);
    net.finish(&[("probabilities", x)])
}
