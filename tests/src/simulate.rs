//! A program for GPUs, run from its PTX text in the interpreter: each buffer is an allocation of its own, so that what reaches beyond
//! one faults.

use lehr_codegen::program::{IoInfo, Place, Program};
use lehr_codegen::ptx::{KernelPlan, Module};
use lehr_ir::Tensor;
use lehr_ptx_sim::{Arg, Device, Grid, Options, Stats};

/// Blocks of a kernel that are looked at for accesses of the same bytes without order: the log takes memory.
const WATCHED_BLOCKS: u32 = 64;

/// Every launch in order. The error is the fault of the data; faults of the kernels panic.
pub fn simulated(program: &Program, module: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    simulated_with(program, module, inputs, |_, _| {})
}

/// Likewise; `launched` gets every kernel and what its launch did.
pub fn simulated_with(
    program: &Program,
    module: &Module,
    inputs: &[Tensor],
    mut launched: impl FnMut(&KernelPlan, &Stats),
) -> Result<Vec<Tensor>, String> {
    let parsed = lehr_ptx_sim::Module::parse(&module.text).unwrap_or_else(|e| panic!("{e}\n{}", module.text));
    let mut device = Device::with_options(Options { global_races: true, ..Options::default() });
    let fault_word = device.alloc(4).expect("an allocation");
    device.upload(fault_word, &[0; 4]).expect("an upload");
    let plan = &module.plan;
    let mut addresses = vec![];
    for b in &plan.buffers {
        let bytes = (b.len * b.dtype.size()) as u64;
        let address = device.alloc(bytes.max(1)).expect("an allocation");
        match b.place {
            Place::Input(i) => device.upload(address, inputs[i].bytes()).expect("an upload"),
            Place::Weights(at) => {
                let weight = program.weights.iter().find(|w| w.offset == at).expect("a weight at each offset");
                device.upload(address, &weight.data).expect("an upload");
            }
            Place::Output(_) | Place::Arena(_) => {}
        }
        addresses.push(address);
    }
    for step in &plan.steps {
        let kernel = &plan.kernels[step.kernel];
        let mut args: Vec<Arg> = step.buffers.iter().map(|&b| Arg::U64(addresses[b])).collect();
        if kernel.has_faults {
            args.extend([Arg::U64(fault_word), Arg::U32(step.first_fault)]);
        }
        let grid = Grid { blocks: kernel.grid, threads: [kernel.threads, 1, 1], dynamic_shared: 0 };
        device.options_mut().global_races = kernel.grid.iter().product::<u32>() <= WATCHED_BLOCKS && !kernel.has_faults;
        let launch = device.launch(&parsed, &kernel.name, grid, &args);
        launched(kernel, &launch.unwrap_or_else(|e| panic!("{e}\n{}", module.text)));
    }
    let fault = device.download(fault_word, 4).expect("a word");
    let fault = u32::from_le_bytes([fault[0], fault[1], fault[2], fault[3]]);
    if fault > 0 {
        return Err(plan.faults[fault as usize - 1].clone());
    }
    let output = |(k, io): (usize, &IoInfo)| {
        let bytes = io.dims.iter().product::<usize>() * io.dtype.size();
        let at = plan.buffers.iter().position(|b| b.place == Place::Output(k));
        // No kernel writes what has no elements.
        let data = at.map_or(vec![], |at| device.download(addresses[at], bytes as u64).expect("outputs are written"));
        Tensor::new(io.dtype, io.dims.clone(), data.into())
    };
    plan.outputs.iter().enumerate().map(output).collect()
}
