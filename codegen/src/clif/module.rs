//! Compiles a program's functions and defines them in a module, JIT or object alike.
//!
//! All functions are declared first, so that each can be compiled on its own: threads take them one by one, and the results are
//! defined in the order of declaration. Output does not depend on the number of threads.

use super::emit::{self, Callees};
use super::target::Target;
use super::{entry, function_name};
use crate::program::Program;
use crate::runtime::abi::MAIN_SYMBOL;
use cranelift::codegen::control::ControlPlane;
use cranelift::codegen::ir::{ExtFuncData, ExternalName, FuncRef, Function, UserExternalName, UserFuncName};
use cranelift::codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift::codegen::{Context, FinalizedRelocTarget};
use cranelift::prelude::*;
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc};
use lehr_ir::Diag;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Functions of the runtime with their f64 parameters.
const MATH: [(&str, usize); 19] = [
    ("lehr_rt_exp_f64", 1),
    ("lehr_rt_expm1_f64", 1),
    ("lehr_rt_log_f64", 1),
    ("lehr_rt_log1p_f64", 1),
    ("lehr_rt_sin_f64", 1),
    ("lehr_rt_cos_f64", 1),
    ("lehr_rt_tan_f64", 1),
    ("lehr_rt_asin_f64", 1),
    ("lehr_rt_acos_f64", 1),
    ("lehr_rt_atan_f64", 1),
    ("lehr_rt_sinh_f64", 1),
    ("lehr_rt_cosh_f64", 1),
    ("lehr_rt_tanh_f64", 1),
    ("lehr_rt_asinh_f64", 1),
    ("lehr_rt_acosh_f64", 1),
    ("lehr_rt_atanh_f64", 1),
    ("lehr_rt_erf_f64", 1),
    ("lehr_rt_pow_f64", 2),
    ("lehr_rt_fmod_f64", 2),
];

/// The functions of a module, declared.
pub(super) struct Functions {
    signatures: Signatures,
    runtime: HashMap<&'static str, FuncId>,
    leaves: Vec<FuncId>,
    kernels: Vec<FuncId>,
    parts: Vec<FuncId>,
    main: FuncId,
    config: TargetFrontendConfig,
}

struct Signatures {
    math: [Signature; 2],
    parallel: Signature,
    leaf: Signature,
    kernel: Signature,
    /// Of the context.
    main: Signature,
}

impl Signatures {
    fn new(call_conv: CallConv) -> Signatures {
        let of = |params: &[Type], returns: &[Type]| Signature {
            params: params.iter().map(|&t| AbiParam::new(t)).collect(),
            returns: returns.iter().map(|&t| AbiParam::new(t)).collect(),
            call_conv,
        };
        let (f, p) = (types::F64, types::I64);
        Signatures {
            math: [of(&[f], &[f]), of(&[f, f], &[f])],
            parallel: of(&[p, p, p, p], &[]),
            leaf: of(&[p], &[]),
            kernel: of(&[p, p, p], &[]),
            main: of(&[p], &[]),
        }
    }
}

/// What is to be compiled.
#[derive(Clone, Copy)]
enum Item {
    Kernel(usize),
    Part(usize),
    Main,
}

/// A compiled function that is not yet in a module.
pub(super) struct Code {
    id: FuncId,
    pub bytes: Vec<u8>,
    align: u64,
    relocs: Vec<ModuleReloc>,
    /// With [`Listing::Yes`].
    pub clif: String,
    pub asm: String,
}

/// Whether text is wanted besides code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    No,
    Yes,
}

impl Functions {
    pub fn declare(module: &mut dyn Module, program: &Program) -> Result<Functions, Diag> {
        let signatures = Signatures::new(module.isa().default_call_conv());
        let mut declare =
            |name: &str, linkage, s: &Signature| module.declare_function(name, linkage, s).map_err(failed);
        let mut runtime = HashMap::new();
        for (name, arity) in MATH {
            runtime.insert(name, declare(name, Linkage::Import, &signatures.math[arity - 1])?);
        }
        let parallel = "lehr_rt_parallel";
        runtime.insert(parallel, declare(parallel, Linkage::Import, &signatures.parallel)?);
        let mut leaves = vec![];
        for k in 0..program.leaves.len() {
            leaves.push(declare(&format!("leaf{k}"), Linkage::Local, &signatures.leaf)?);
        }
        let mut kernels = vec![];
        for k in 0..program.kernels.len() {
            kernels.push(declare(&function_name(program, k), Linkage::Local, &signatures.kernel)?);
        }
        let mut parts = vec![];
        if program.steps.len() > entry::STEPS_PER_FUNCTION {
            for k in 0..program.steps.len().div_ceil(entry::STEPS_PER_FUNCTION) {
                parts.push(declare(&format!("steps{k}"), Linkage::Local, &signatures.main)?);
            }
        }
        let main = declare(MAIN_SYMBOL, Linkage::Export, &signatures.main)?;
        let config = module.target_config();
        Ok(Functions { signatures, runtime, leaves, kernels, parts, main, config })
    }

    pub fn main(&self) -> FuncId {
        self.main
    }

    pub fn frontend_config(&self) -> TargetFrontendConfig {
        self.config
    }

    fn import(&self, func: &mut Function, id: FuncId, signature: &Signature, linkage: Linkage) -> FuncRef {
        let signature = func.import_signature(signature.clone());
        let name = func.declare_imported_user_function(UserExternalName { namespace: 0, index: id.as_u32() });
        let name = ExternalName::user(name);
        func.import_function(ExtFuncData { name, signature, colocated: linkage.is_final(), patchable: false })
    }

    pub fn kernel(&self, func: &mut Function, kernel: usize) -> FuncRef {
        self.import(func, self.kernels[kernel], &self.signatures.kernel, Linkage::Local)
    }

    pub fn runtime(&self, func: &mut Function, name: &str) -> FuncRef {
        let arity = MATH.iter().find(|(known, _)| *known == name).map(|(_, arity)| arity - 1);
        let signature = arity.map_or(&self.signatures.parallel, |k| &self.signatures.math[k]);
        self.import(func, self.runtime[name], signature, Linkage::Import)
    }

    fn items(&self, program: &Program) -> Vec<Item> {
        let kernels = (0..program.kernels.len()).map(Item::Kernel);
        kernels.chain((0..self.parts.len()).map(Item::Part)).chain([Item::Main]).collect()
    }

    /// Compiles everything but the leaves, on `threads` threads, in the order of declaration.
    pub fn compile(
        &self,
        program: &Program,
        target: &Target,
        threads: usize,
        listing: Listing,
    ) -> Result<Vec<Code>, Diag> {
        let items = self.items(program);
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Result<Code, Diag>)>> = Mutex::new(vec![]);
        let work = || {
            let mut builder = FunctionBuilderContext::new();
            let mut context = Context::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(&item) = items.get(at) else { return };
                let code = self.one(item, program, target, listing, &mut context, &mut builder);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((at, code));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.clamp(1, items.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, code)| code).collect()
    }

    fn one(
        &self,
        item: Item,
        program: &Program,
        target: &Target,
        listing: Listing,
        context: &mut Context,
        builder: &mut FunctionBuilderContext,
    ) -> Result<Code, Diag> {
        context.clear();
        let (id, signature, name) = match item {
            Item::Kernel(k) => (self.kernels[k], &self.signatures.kernel, function_name(program, k)),
            Item::Part(k) => (self.parts[k], &self.signatures.main, format!("steps{k}")),
            Item::Main => (self.main, &self.signatures.main, MAIN_SYMBOL.to_string()),
        };
        context.func.signature = signature.clone();
        context.func.name = UserFuncName::user(0, id.as_u32());
        let b = FunctionBuilder::new(&mut context.func, builder);
        match item {
            Item::Kernel(k) => emit::kernel(b, &program.kernels[k], target, self),
            Item::Part(k) => {
                let first = k * entry::STEPS_PER_FUNCTION;
                let end = (first + entry::STEPS_PER_FUNCTION).min(program.steps.len());
                entry::steps(b, program, first..end, self);
            }
            Item::Main if self.parts.is_empty() => entry::steps(b, program, 0..program.steps.len(), self),
            Item::Main => entry::sequence(b, self.parts.len(), self, |func, k| {
                self.import(func, self.parts[k], &self.signatures.main, Linkage::Local)
            }),
        }
        let clif =
            if listing == Listing::Yes { format!("; {name}\n{}", context.func.display()) } else { String::new() };
        context.set_disasm(listing == Listing::Yes);
        let mut plane = ControlPlane::default();
        let compiled = context.compile(target.isa(), &mut plane).map_err(|error| {
            Diag::new("compile.codegen", format!("the code of {name} was refused: {:?}", error.inner))
                .note("this is a mistake in lehr; please report it with the model")
        })?;
        let asm = compiled.vcode.as_ref().map_or(String::new(), |text| format!("{name}:\n{text}\n"));
        let (bytes, align) = (compiled.code_buffer().to_vec(), u64::from(compiled.buffer.alignment));
        let found = compiled.buffer.relocs().to_vec();
        for reloc in &found {
            if let FinalizedRelocTarget::ExternalName(ExternalName::LibCall(call)) = &reloc.target {
                return Err(Diag::new("compile.codegen", format!("the code of {name} would need the function {call}"))
                    .note("this is a mistake in lehr; another --target-cpu avoids it"));
            }
        }
        let relocs = found.iter().map(|r| ModuleReloc::from_mach_reloc(r, &context.func, id)).collect();
        Ok(Code { id, bytes, align, relocs, clif, asm })
    }

    /// Puts leaves and compiled functions into the module.
    pub fn define(&self, module: &mut dyn Module, program: &Program, codes: &[Code]) -> Result<(), Diag> {
        for (leaf, &id) in program.leaves.iter().zip(&self.leaves) {
            module.define_function_bytes(id, 64, &leaf.code, &[]).map_err(failed)?;
        }
        for code in codes {
            module.define_function_bytes(code.id, code.align.max(32), &code.bytes, &code.relocs).map_err(failed)?;
        }
        Ok(())
    }
}

impl Callees for Functions {
    fn math(&self, func: &mut Function, name: &str) -> FuncRef {
        self.runtime(func, name)
    }

    fn leaf(&self, func: &mut Function, leaf: u32) -> FuncRef {
        self.import(func, self.leaves[leaf as usize], &self.signatures.leaf, Linkage::Local)
    }
}

fn failed(error: cranelift_module::ModuleError) -> Diag {
    Diag::new("compile.module", format!("the code could not be put together: {error}"))
}
