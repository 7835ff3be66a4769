//! A model small enough to be written by hand: `sum[i] = a[i] + b[i] + w`, in parallel, with a fault if `a[0]` is NaN.

use std::path::Path;
use std::sync::Arc;

use cranelift::prelude::*;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use lehr_codegen::artefact::*;
use lehr_codegen::runtime::abi::{self, MAIN_SYMBOL, MainFn, RunCtx, dtype};
use lehr_codegen::runtime::runtime_symbols;

pub const FAULT: &str = "node 'first': a[0] is NaN";
/// Where the weight lies, after a gap.
const WEIGHT_OFFSET: i32 = 128;

pub fn image(name: &str, n: i64, weight: f32) -> ModelImage {
    let io = |name: &str| IoSpec { name: name.into(), dtype: dtype::F32, dims: vec![1, n], bytes: 4 * n as u64 };
    ModelImage {
        name: name.into(),
        target: "x86_64-unknown-linux-gnu".into(),
        isa: abi::isa::SSE2,
        inputs: vec![io("a"), io("b/2")],
        outputs: vec![io("sum")],
        arena_bytes: 1000,
        faults: vec!["unused".into(), FAULT.into()],
        metadata: "{\"made\":\"by hand\"}".into(),
        weights: vec![
            WeightBlob { offset: 0, data: vec![7u8; 5].into() },
            WeightBlob { offset: WEIGHT_OFFSET as u64, data: weight.to_le_bytes().to_vec().into() },
        ],
        weights_bytes: 256,
        gpu: None,
        device_bytes: 0,
    }
}

/// Defines the kernel and `main` in either kind of module.
fn define<M: Module>(module: &mut M, n: i64) -> cranelift_module::FuncId {
    let (pointer, config) = (types::I64, module.target_config());
    let signature = |module: &M, parameters: &[Type]| {
        let mut signature = module.make_signature();
        signature.params.extend(parameters.iter().map(|&ty| AbiParam::new(ty)));
        signature
    };
    let kernel_signature = signature(module, &[pointer, types::I64, types::I64]);
    let parallel_signature = signature(module, &[pointer, pointer, pointer, types::I64]);
    let main_signature = signature(module, &[pointer]);
    let kernel = module.declare_function("kernel_add", Linkage::Local, &kernel_signature).unwrap();
    let parallel = module.declare_function("lehr_rt_parallel", Linkage::Import, &parallel_signature).unwrap();
    let sine = {
        let mut signature = module.make_signature();
        signature.params.push(AbiParam::new(types::F64));
        signature.returns.push(AbiParam::new(types::F64));
        module.declare_function("lehr_rt_sin_f64", Linkage::Import, &signature).unwrap()
    };
    let main = module.declare_function(MAIN_SYMBOL, Linkage::Export, &main_signature).unwrap();
    let flags = MemFlagsData::trusted();

    let mut context = module.make_context();
    let mut functions = FunctionBuilderContext::new();
    context.func.signature = kernel_signature;
    {
        // for i in lo..hi { sum[i] = a[i] + b[i] + *w }
        let mut f = FunctionBuilder::new(&mut context.func, &mut functions);
        let (entry, head, body, exit) = (f.create_block(), f.create_block(), f.create_block(), f.create_block());
        f.append_block_params_for_function_params(entry);
        f.append_block_param(head, types::I64);
        f.switch_to_block(entry);
        let [args, lo, hi] = f.block_params(entry).try_into().unwrap();
        let pointers: Vec<Value> = (0..4).map(|k| f.ins().load(pointer, flags, args, 8 * k)).collect();
        f.ins().jump(head, &[lo.into()]);
        f.switch_to_block(head);
        let i = f.block_params(head)[0];
        let more = f.ins().icmp(IntCC::SignedLessThan, i, hi);
        f.ins().brif(more, body, &[], exit, &[]);
        f.switch_to_block(body);
        let offset = f.ins().ishl_imm_u(i, 2);
        let at = |f: &mut FunctionBuilder, k: usize| f.ins().iadd(pointers[k], offset);
        let (a, b, out) = (at(&mut f, 0), at(&mut f, 1), at(&mut f, 2));
        let a = f.ins().load(types::F32, flags, a, 0);
        let b = f.ins().load(types::F32, flags, b, 0);
        let w = f.ins().load(types::F32, flags, pointers[3], WEIGHT_OFFSET);
        let sum = f.ins().fadd(a, b);
        let sum = f.ins().fadd(sum, w);
        f.ins().store(flags, sum, out, 0);
        let next = f.ins().iadd_imm_s(i, 1);
        f.ins().jump(head, &[next.into()]);
        f.switch_to_block(exit);
        f.ins().return_(&[]);
        f.seal_all_blocks();
        f.finalize(config);
    }
    module.define_function(kernel, &mut context).unwrap();
    module.clear_context(&mut context);

    context.func.signature = main_signature;
    {
        let mut f = FunctionBuilder::new(&mut context.func, &mut functions);
        let (entry, bad, good) = (f.create_block(), f.create_block(), f.create_block());
        f.append_block_params_for_function_params(entry);
        f.switch_to_block(entry);
        let ctx = f.block_params(entry)[0];
        let slot = f.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 32, 4));
        let inputs = f.ins().load(pointer, flags, ctx, RunCtx::INPUTS_OFFSET);
        let outputs = f.ins().load(pointer, flags, ctx, RunCtx::OUTPUTS_OFFSET);
        let weights = f.ins().load(pointer, flags, ctx, RunCtx::WEIGHTS_OFFSET);
        let a = f.ins().load(pointer, flags, inputs, 0);
        let b = f.ins().load(pointer, flags, inputs, 8);
        let sum = f.ins().load(pointer, flags, outputs, 0);
        for (k, value) in [a, b, sum, weights].into_iter().enumerate() {
            f.ins().stack_store(pointer, value, slot, 8 * k as i32);
        }
        // Through the runtime's sine, for a call out of main: sin(NaN) is NaN as well.
        let first = f.ins().load(types::F32, flags, a, 0);
        let first = f.ins().fpromote(types::F64, first);
        let sine = module.declare_func_in_func(sine, f.func);
        let call = f.ins().call(sine, &[first]);
        let sine = f.inst_results(call)[0];
        let nan = f.ins().fcmp(FloatCC::Unordered, sine, sine);
        f.ins().brif(nan, bad, &[], good, &[]);
        f.switch_to_block(bad);
        let fault = f.ins().load(pointer, flags, ctx, RunCtx::FAULT_OFFSET);
        let two = f.ins().iconst(types::I32, 2);
        f.ins().store(flags, two, fault, 0);
        f.ins().jump(good, &[]);
        f.switch_to_block(good);
        let kernel = module.declare_func_in_func(kernel, f.func);
        let parallel = module.declare_func_in_func(parallel, f.func);
        let kernel = f.ins().func_addr(pointer, kernel);
        let args = f.ins().stack_addr(pointer, slot, 0);
        let extent = f.ins().iconst(types::I64, n);
        f.ins().call(parallel, &[ctx, kernel, args, extent]);
        f.ins().return_(&[]);
        f.seal_all_blocks();
        f.finalize(config);
    }
    module.define_function(main, &mut context).unwrap();
    main
}

fn target(pic: &str) -> isa::OwnedTargetIsa {
    let mut flags = settings::builder();
    flags.set("is_pic", pic).unwrap();
    flags.set("opt_level", "speed").unwrap();
    cranelift_native::builder().unwrap().finish(settings::Flags::new(flags)).unwrap()
}

pub fn object(n: i64) -> Vec<u8> {
    let builder = ObjectBuilder::new(target("true"), "model", default_libcall_names()).unwrap();
    let mut module = ObjectModule::new(builder);
    define(&mut module, n);
    module.finish().emit().unwrap()
}

/// The same model, jitted.
pub fn jitted(image: ModelImage, n: i64) -> Artefact {
    let mut builder = JITBuilder::with_isa(target("false"), default_libcall_names());
    for (name, address) in runtime_symbols() {
        builder.symbol(name, address);
    }
    let mut module = JITModule::new(builder);
    let main = define(&mut module, n);
    module.finalize_definitions().unwrap();
    let address = module.get_finalized_function(main);
    // SAFETY: the function was defined with this signature, and the module goes with it.
    let main = unsafe { std::mem::transmute::<*const u8, MainFn>(address) };
    Artefact::from_jit(image, main, Box::new(module)).unwrap()
}

pub fn written(image: &ModelImage, n: i64, linker: Linker, path: &Path) -> Artefact {
    let options = SoOptions { linker, ..SoOptions::default() };
    write_so(image, &[object(n)], &options, path).unwrap();
    Artefact::open(path).unwrap()
}

/// Whether there is a C compiler; a test that needs one says so when there is none.
pub fn have_cc(test: &str) -> bool {
    let found = std::process::Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("{test}: not run, since there is no `cc` here");
    }
    found
}

/// Inputs with some variety.
pub fn inputs(n: i64) -> [Arc<Vec<f32>>; 2] {
    let series = |scale: f32| Arc::new((0..n).map(|i| (i as f32 * scale).sin() * 3.0).collect::<Vec<f32>>());
    [series(0.37), series(1.3)]
}

pub fn expected(n: i64, weight: f32) -> Vec<f32> {
    let [a, b] = inputs(n);
    a.iter().zip(b.iter()).map(|(a, b)| a + b + weight).collect()
}

/// A buffer of f32 seen as bytes, so that it is aligned.
pub fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: any bytes of floats can be read as bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), 4 * values.len()) }
}

pub fn as_bytes_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are floats.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), 4 * values.len()) }
}

pub fn run(session: &mut Session, n: i64) -> Result<Vec<f32>, RunError> {
    let [a, b] = inputs(n);
    run_on(session, &a, &b)
}

pub fn run_on(session: &mut Session, a: &[f32], b: &[f32]) -> Result<Vec<f32>, RunError> {
    let dims = [1, a.len() as i64];
    let mut sum = vec![0f32; a.len()];
    let tensor = |values| TensorRef { dtype: dtype::F32, dims: &dims, data: as_bytes(values) };
    let output = TensorMut { dtype: dtype::F32, dims: &dims, data: as_bytes_mut(&mut sum) };
    session.run(&[tensor(a), tensor(b)], &mut [output]).map(|()| sum)
}
