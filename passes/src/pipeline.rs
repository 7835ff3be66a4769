//! The pipelines: flat lists of named passes.

use crate::dead_code::remove_dead_code;
use crate::equal_nodes::merge_equal_nodes;
use crate::fold_constants::fold_constants;
use crate::manager::{Kind, Pass};
use crate::rule::Rule;
use crate::rules::*;
use std::fmt;
use std::str::FromStr;

/// How much is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OptLevel {
    /// Nothing that changes numbers: every intermediate value stays what the model says.
    O0,
    /// Clean-ups and constants.
    O1,
    /// Everything.
    #[default]
    O2,
    /// The passes of `O2`; code generation leaves out what makes weights larger.
    Os,
}

impl FromStr for OptLevel {
    type Err = String;

    fn from_str(s: &str) -> Result<OptLevel, String> {
        match s.trim_start_matches(['O', 'o']) {
            "0" => Ok(OptLevel::O0),
            "1" => Ok(OptLevel::O1),
            "2" => Ok(OptLevel::O2),
            "s" => Ok(OptLevel::Os),
            _ => Err(format!("there is no optimisation level {s}: 0, 1, 2 or s")),
        }
    }
}

impl fmt::Display for OptLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

const DEAD_CODE: Pass =
    Pass { name: "remove-dead-code", doc: "Removes what no output depends on.", kind: Kind::Graph(remove_dead_code) };
const CONSTANTS: Pass = Pass {
    name: "fold-constants",
    doc: "Computes what depends on constants alone.",
    kind: Kind::Graph(fold_constants),
};
const EQUAL_NODES: Pass =
    Pass { name: "merge-equal-nodes", doc: "Computes equal expressions once.", kind: Kind::Graph(merge_equal_nodes) };
const CLEAN_UP: Pass = Pass {
    name: "clean-up",
    doc: "Removes operators that do nothing, and merges chains of reshapes and transposes.",
    kind: Kind::Rules(&[&REMOVE_NO_OP, &MERGE_RESHAPES, &MERGE_TRANSPOSES, &TRANSPOSE_TO_RESHAPE]),
};
const PADDING: Pass = Pass {
    name: "merge-padding",
    doc: "Moves explicit padding into the operator that reads it.",
    kind: Kind::Rules(&[&MERGE_PADS, &MERGE_PAD_INTO_CONV, &MERGE_PAD_INTO_POOL]),
};
const WEIGHTS: Pass = Pass {
    name: "fold-into-weights",
    doc: "Moves normalisation, scales and offsets into the weights beside them.",
    kind: Kind::Rules(&[
        &FOLD_BATCH_NORM,
        &FOLD_BATCH_NORM_BEFORE_CONV,
        &FOLD_BATCH_NORM_BEFORE_GEMM,
        &FOLD_SCALE,
        &MATMUL_TO_GEMM,
    ]),
};
const NORMALISATION: Pass = Pass {
    name: "split-batch-norm",
    doc: "Makes a product and a sum of a normalisation that no weights could take.",
    kind: Kind::Rules(&[&BATCH_NORM_TO_AFFINE]),
};
const APPROXIMATE: Pass = Pass {
    name: "approximate",
    doc: "Puts smaller convolutions for larger ones, within a tolerance and where they are measured to be faster.",
    kind: Kind::Rules(&[&SEPARATE_CONV, &FACTORIZE_CONV]),
};
const EPILOGUES: Pass = Pass {
    name: "fuse-epilogues",
    doc: "Lets convolutions, products, pools and reductions do the elementwise work behind them.",
    kind: Kind::Rules(&[&FUSE_EPILOGUE]),
};
const ELEMENTWISE: Pass = Pass {
    name: "fuse-elementwise",
    doc: "Makes one kernel of neighbouring elementwise operators.",
    kind: Kind::Rules(&[&FUSE_ELEMENTWISE]),
};

static O0: &[Pass] = &[DEAD_CODE];
static O1: &[Pass] = &[DEAD_CODE, CONSTANTS, CLEAN_UP, EQUAL_NODES, CONSTANTS, DEAD_CODE];
static O2: &[Pass] = &[
    DEAD_CODE,
    CONSTANTS,
    CLEAN_UP,
    EQUAL_NODES,
    PADDING,
    WEIGHTS,
    NORMALISATION,
    CONSTANTS,
    CLEAN_UP,
    EQUAL_NODES,
    DEAD_CODE,
    EPILOGUES,
    ELEMENTWISE,
];
static ALL: &[Pass] = &[
    DEAD_CODE,
    CONSTANTS,
    EQUAL_NODES,
    CLEAN_UP,
    PADDING,
    WEIGHTS,
    NORMALISATION,
    APPROXIMATE,
    EPILOGUES,
    ELEMENTWISE,
];

/// The passes of a level, in order.
pub fn pipeline(level: OptLevel) -> &'static [Pass] {
    match level {
        OptLevel::O0 => O0,
        OptLevel::O1 => O1,
        OptLevel::O2 | OptLevel::Os => O2,
    }
}

/// The passes of a level with `approximate` among them: after what changes weights, before what fuses.
pub fn approximate_pipeline(level: OptLevel) -> Vec<Pass> {
    let mut passes = pipeline(level).to_vec();
    let fusion = passes.iter().position(|p| p.name == EPILOGUES.name);
    passes.insert(fusion.unwrap_or(passes.len()), APPROXIMATE);
    passes
}

/// Every pass, once.
pub fn all_passes() -> &'static [Pass] {
    ALL
}

/// The pass called `name`, as a list to run.
pub fn pass(name: &str) -> Option<&'static [Pass]> {
    ALL.iter().position(|p| p.name == name).map(|at| &ALL[at..=at])
}

/// The rule called `name`.
pub fn rule(name: &str) -> Option<&'static Rule> {
    ALL.iter().flat_map(Pass::rules).copied().find(|r| r.name == name)
}
