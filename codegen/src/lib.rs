//! From the IR to machine code: lowering to kernels, memory plan, back ends, artefacts and their runtime.
//!
//! ```text
//! graph --lower--> kernels + steps --plan--> buffers --emit--> machine code --> JIT | model.so
//!                                                       `----> PTX and a launch plan
//! ```

pub mod artefact;
pub mod clif;
pub mod compile;
pub mod kernel;
pub mod layout;
pub mod lower;
pub mod machine;
pub mod peak;
pub mod plan;
pub mod profile;
pub mod program;
pub mod ptx;
pub mod runtime;
pub mod strategy;
pub mod x86;
