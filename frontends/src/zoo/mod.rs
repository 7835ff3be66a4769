//! Networks built in code, with seeded weights: the same name and seed give the same graph everywhere.

mod build;
mod lenet5;

pub use build::{Conv, Net, Pool};
use lehr_ir::Graph;

/// Names of the networks, for `zoo:NAME`.
pub const NAMES: &[&str] = &["lenet5"];

/// A network by name; `None` if there is none of that name. The batch is the symbolic dimension `batch`.
pub fn build(name: &str, seed: u64) -> Option<Graph> {
    match name {
        "lenet5" => Some(lenet5::build(seed)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_builds_the_same_twice() {
        for name in NAMES {
            assert_eq!(build(name, 1), build(name, 1));
            assert_ne!(build(name, 1), build(name, 2));
        }
        assert!(build("nonesuch", 1).is_none());
    }

    #[test]
    fn lenet5_has_the_sizes_of_the_paper() {
        let g = build("lenet5", 1).unwrap();
        assert_eq!(g.ty(g.inputs()[0]).to_string(), "f32[batch,1,28,28]");
        assert_eq!(g.ty(g.outputs[0].value).to_string(), "f32[batch,10]");
        let weights = g.ids().filter_map(|id| g.constant(id.out(0)).map(|c| c.tensor().len()));
        assert_eq!(weights.sum::<usize>(), 61_706);
    }
}
