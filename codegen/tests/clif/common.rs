//! Runs a kernel by the interpreter and compiled, and compares what they leave in memory.

use lehr_codegen::artefact::{Session, TensorMut, TensorRef};
use lehr_codegen::compile::{self, CompileOptions, dtype_code};
use lehr_codegen::kernel::interp;
use lehr_codegen::kernel::{Access, Buffer, Kernel};
use lehr_codegen::program::{BufferId, BufferInfo, IoInfo, Place, Program, Step};
use lehr_ir::DType;

/// What is read comes in as an input, what is written goes out as an output.
pub fn program(kernel: &Kernel) -> Program {
    let mut p = Program { name: kernel.name.clone(), ..Program::default() };
    for (k, param) in kernel.params.iter().enumerate() {
        let io = IoInfo { name: format!("b{k}"), dtype: param.dtype, dims: vec![param.len] };
        let place = match param.access {
            Access::Read => {
                p.inputs.push(io);
                Place::Input(p.inputs.len() - 1)
            }
            Access::Write | Access::ReadWrite => {
                p.outputs.push(io);
                Place::Output(p.outputs.len() - 1)
            }
        };
        p.buffers.push(BufferInfo { dtype: param.dtype, len: param.len, place: Some(place), name: None });
    }
    p.faults = kernel.faults.clone();
    let args = (0..kernel.params.len() as u32).map(BufferId).collect();
    p.steps.push(Step { kernel: 0, args, origins: vec![], first_fault: 0 });
    p.kernels.push(kernel.clone());
    p
}

/// CPUs to compile for: what this machine has, and what has no vectors in Cranelift.
pub const CPUS: [&str; 3] = ["native", "x86-64-v2", "x86-64"];

/// Runs compiled code on the buffers; gives the text of a fault.
pub fn compiled(kernel: &Kernel, cpu: &str, buffers: &mut [Vec<u8>]) -> Option<String> {
    let options = CompileOptions { cpu: cpu.into(), threads: 1, ..CompileOptions::default() };
    let (artefact, _) = compile::jit(&mut program(kernel), &options).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    let mut session = Session::new(&artefact, 1).expect("a workspace");
    run(&mut session, &kernel.params, buffers)
}

pub fn run(session: &mut Session, params: &[Buffer], buffers: &mut [Vec<u8>]) -> Option<String> {
    // Inputs must be aligned to their elements.
    let mut aligned: Vec<Vec<u64>> = buffers.iter().map(|b| vec![0; b.len() / 8 + 1]).collect();
    let dims: Vec<[i64; 1]> = params.iter().map(|p| [p.len as i64]).collect();
    let (mut inputs, mut outputs) = (vec![], vec![]);
    for (k, (words, param)) in aligned.iter_mut().zip(params).enumerate() {
        // SAFETY: the words are bytes as well, and there are enough of them.
        let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), buffers[k].len()) };
        bytes.copy_from_slice(&buffers[k]);
        let dtype = dtype_code(param.dtype);
        match param.access {
            Access::Read => inputs.push(TensorRef { dtype, dims: &dims[k], data: bytes }),
            Access::Write | Access::ReadWrite => outputs.push((k, TensorMut { dtype, dims: &dims[k], data: bytes })),
        }
    }
    let (at, mut tensors): (Vec<usize>, Vec<TensorMut>) = outputs.into_iter().unzip();
    let fault = session.run(&inputs, &mut tensors).err().map(|e| e.text);
    for (k, t) in at.into_iter().zip(tensors) {
        buffers[k].copy_from_slice(t.data);
    }
    fault
}

/// Checks that all compiled versions leave what the interpreter leaves, within `ulps` units in the last place of floats.
pub fn agree(kernel: &Kernel, buffers: &[Vec<u8>], ulps: u64) {
    assert_eq!(kernel.check(), Vec::<String>::new(), "{kernel}");
    let mut expected = buffers.to_vec();
    let fault = interp::run(kernel, &mut expected, 0..kernel.extent).unwrap_or_else(|e| panic!("{e}\n{kernel}"));
    for cpu in CPUS {
        let mut got = buffers.to_vec();
        let text = compiled(kernel, cpu, &mut got);
        assert_eq!(text, fault.map(|f| kernel.faults[f as usize].clone()), "{cpu}\n{kernel}");
        for (k, param) in kernel.params.iter().enumerate() {
            let size = param.dtype.size();
            for i in 0..param.len {
                let element = |b: &[Vec<u8>]| interp::decode(param.dtype, &b[k][i * size..(i + 1) * size]);
                let (e, g) = (element(&expected), element(&got));
                assert!(close(e, g, ulps), "b{k}[{i}]: interpreter {e:?}, compiled for {cpu} {g:?}\n{kernel}");
            }
        }
    }
}

pub fn close(a: interp::Num, b: interp::Num, ulps: u64) -> bool {
    match (a, b) {
        (interp::Num::F32(a), interp::Num::F32(b)) if a.is_nan() || b.is_nan() => a.is_nan() && b.is_nan(),
        (interp::Num::F64(a), interp::Num::F64(b)) if a.is_nan() || b.is_nan() => a.is_nan() && b.is_nan(),
        (interp::Num::F32(a), interp::Num::F32(b)) => {
            distance(a.to_bits() as i32 as i64, b.to_bits() as i32 as i64) <= ulps
                && (ulps > 0 || a.to_bits() == b.to_bits())
        }
        (interp::Num::F64(a), interp::Num::F64(b)) => {
            distance(a.to_bits() as i64, b.to_bits() as i64) <= ulps && (ulps > 0 || a.to_bits() == b.to_bits())
        }
        (a, b) => a == b,
    }
}

/// Floats between two bit patterns.
pub fn distance(a: i64, b: i64) -> u64 {
    let ordered = |v: i64| {
        if v < 0 { (if v >= i32::MIN as i64 { i32::MIN as i64 } else { i64::MIN }).wrapping_sub(v) } else { v }
    };
    ordered(a).wrapping_sub(ordered(b)).unsigned_abs()
}

/// Numbers without order from a seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0 ^ self.0 >> 33;
        x.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 16
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Elements with awkward ones among them.
pub fn data(t: DType, len: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![];
    for _ in 0..len {
        let v = match t {
            DType::Bool => interp::Num::Int(t, rng.below(2) as i64),
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
                let special = [0.0, -0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3e38, 1e-40, 70000.0];
                let v = match rng.below(8) {
                    0 => special[rng.below(10) as usize],
                    _ => (rng.below(20_001) as f64 - 10_000.0) / 256.0,
                };
                if t == DType::F64 { interp::Num::F64(v) } else { interp::Num::F32(v as f32) }
            }
            _ => {
                let special = [0, 1, -1, i64::MIN, i64::MAX, i32::MIN as i64, 127, -128];
                let v = match rng.below(4) {
                    0 => special[rng.below(8) as usize],
                    1 => rng.next() as i64,
                    _ => rng.below(200) as i64 - 100,
                };
                interp::Num::Int(t, v)
            }
        };
        bytes.extend_from_slice(&interp::encode(t, v)[..t.size()]);
    }
    bytes
}

/// Data for every parameter.
pub fn buffers(kernel: &Kernel, rng: &mut Rng) -> Vec<Vec<u8>> {
    kernel.params.iter().map(|p| data(p.dtype, p.len, rng)).collect()
}
